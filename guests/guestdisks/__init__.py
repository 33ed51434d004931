"""The parts that the builders of test disks are put together from.

Every module here needs only the Python standard library and programs of Debian or Ubuntu, so that a disk can be
built with the system's own Python as well as from the project's virtual environment. Nothing here is imported by
the product, and the product imports nothing from here.
"""
