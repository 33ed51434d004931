"""Tests of the rooms' parts without a mount."""
