"""Your fleet. Change the names, the addresses and the keys; docs/settings.md lists every setting.

    fleet check inventory/prod.py             see that it is sound; no host is reached
    pyinfra inventory/prod.py deploy.py       converge it
    fleet verify inventory/prod.py            prove it

A host is a name that ssh knows, and what differs for it. `private_address` is its address inside
the fleet. How this machine logs in is in group_data/prod.py. Host keys are checked: connect once
with ssh, or point ssh_known_hosts_file to a file there.
"""

# Hosts that run Ollama. Each may have models of its own: docs/operating/mixed-fleets.md.
gpu = (
    [
        ("gpu1.example.internal", {"private_address": "10.20.0.11"}),
        ("gpu2.example.internal", {"private_address": "10.20.0.12"}),
    ],
    {
        # How many GPUs each has; fewer is a failure. 0 is a host that serves from the CPU.
        "gpu_count": 1,
        # Serve the gateway, on the private address; the firewall lets only gateways through.
        "ollama_listen": "private",
        "ollama_models": ["gpt-oss:20b"],
        # Keep a model loaded for a day after its last use.
        "ollama_keep_alive": "24h",
        # Without it Ollama picks up to 131072 tokens by VRAM, and most of the VRAM goes there.
        "ollama_context_length": 32768,
        "ollama_num_parallel": 4,
        # Several servers on a host, with GPUs of their own: docs/operating/ollama.md.
    },
)

# Hosts with the nginx gateway. May be one of the GPU hosts.
gateway = (
    [("edge.example.internal", {"private_address": "10.20.0.10"})],
    {
        # One name a client. `fleet key show inventory/prod.py research` prints its value.
        "gateway_keys": [
            "research",
            {"name": "ci", "rate": "120/m", "concurrent": 4, "expires": "2027-06-30"},
            # Pulls and deletes models, below /hosts/<name>/, from one network only.
            {"name": "operators", "role": "admin", "allow_from": ["10.1.0.0/16"]},
        ],
        # HTTPS with a certificate of the fleet's own authority; `fleet ca inventory/prod.py`
        # prints what clients must trust. How to use your own, or ACME: docs/operating/gateway.md.
        "gateway_tls": "private-ca",
        "gateway_allow_from": ["10.0.0.0/8"],
    },
)
