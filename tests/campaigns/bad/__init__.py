"""The cases of ``tests.campaigns.bad_input``, a module for each kind."""
