"""The steps of the database's form, applied by `Database.migrate` when a server or a command opens it."""
