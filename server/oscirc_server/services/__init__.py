"""What the server does, one module per subject: functions over an `Installation`, knowing nothing of HTTP.

All of them are synchronous (the database and the disk are), except the reading of an upload's body.
"""
