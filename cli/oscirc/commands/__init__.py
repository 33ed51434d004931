"""One module per noun; each exports the click commands that `oscirc.__main__` lists."""
