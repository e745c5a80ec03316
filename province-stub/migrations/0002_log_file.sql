-- Which file the change log is in, device and inode: a copy that was put back is another file, and begins a new epoch.
ALTER TABLE log_head ADD COLUMN file BLOB;
