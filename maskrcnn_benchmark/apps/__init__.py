"""Where the parts are built from the config and handed to the loops."""
