"""How this machine logs in to the hosts of inventory/prod.py: a group_data file of its name."""

# As root, leave _sudo out.
ssh_user = "ops"
_sudo = True
# Host keys are checked: log in to each new host by hand once, comparing the key it shows, or
# collect the keys with ssh-keyscan and compare those. pyinfra alone would accept any new one.
ssh_strict_host_key_checking = "yes"
