"""The `oscirc` command: composes the rooms; arguments in, text or JSON out. No rule of the product lives here."""
