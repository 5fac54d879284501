"""etcd v3 as the datastore of many hosts."""

import os

# What gRPC writes to standard error by itself says nothing that our own errors do not say. It must
# be told before it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
