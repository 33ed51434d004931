"""Imports another tree into this repository (ADR 22): what TUF permits without anybody signing anew, else the blocks.

`reading` takes the tree apart and believes nothing of it but what its own chain of roots signs; `copying` brings blocks
through the very path of an upload, so that each is decoded, hashed, leased and given its row; `taking_over` lets roles
take force; `running` puts these together. All of it can be interrupted and repeated.
"""
