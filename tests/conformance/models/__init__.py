"""One file per lineage; importing it registers its cases."""
