"""A module for each verb: what it takes, what it calls, what it shows."""
