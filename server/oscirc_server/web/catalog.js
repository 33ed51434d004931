// Copy buttons, and a list that follows its checkboxes. Everything works without this.
"use strict";

function told(button, text) {
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1500);
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    told(button, "Copied");
  } catch {
    getSelection().selectAllChildren(source);
    told(button, document.execCommand("copy") ? "Copied" : "Selected");
  }
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

for (const form of document.querySelectorAll("form[data-follow]")) {
  form.addEventListener("change", (event) => {
    if (event.target.matches("input[type=checkbox], select")) form.requestSubmit();
  });
}
