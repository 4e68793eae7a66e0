"""Reports of runs as HTML files that stand alone."""
