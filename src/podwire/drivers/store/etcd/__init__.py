"""etcd v3 as the datastore of many hosts."""
