"""The REST API below `api/v1/`: thin routers that read a request, ask a service and write its answer.

Contract: ADR 0002. Who asks is settled before a body is read, every body is bounded while it is read, and every
error is an RFC 9457 problem (`problems`).
"""
