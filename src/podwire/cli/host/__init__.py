"""Files that `podwire node install` puts on a host, as they are shipped."""
