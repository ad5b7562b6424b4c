"""What a deploy and its checks cost over many hosts, beside Ansible: `make bench-fleet`."""
