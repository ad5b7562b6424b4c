"""From bare hosts to a private LLM service: `pyinfra inventory/prod.py deploy.py`."""

from pyinfra import host, inventory

from fleet.capabilities import CAPABILITIES
from fleet.declare import inventory_file
from fleet.declare.load import load_fleet
from fleet.dify.settings import Dify
from fleet.docker.settings import Docker
from fleet.driver.settings import Driver
from fleet.gateway.settings import Gateway
from fleet.kit.commands import barrier
from fleet.kit.run import alone, give_way, lock_host
from fleet.ollama.settings import Ollama
from fleet.vllm.settings import Vllm
from fleet.webui.settings import Webui
from tasks.container_toolkit import container_toolkit
from tasks.dify import dify
from tasks.docker import docker
from tasks.driver import driver
from tasks.firewall import firewall
from tasks.gates import gpus_found, memory, memory_with_driver, placement
from tasks.gateway import gateway, served_again, serving
from tasks.gpu import gpus, gpus_driven
from tasks.models import models
from tasks.ollama import instances, ollama
from tasks.platform import began, ended, forgone, outlook, platform
from tasks.vllm import vllm, vllm_fits
from tasks.webui import webui
from tasks.weights import pruned_weights, room_for_weights, weights

# Refuses bad settings of any host before the first host is changed.
fleet = load_fleet(inventory, CAPABILITIES, inventory_file.asked(), deploys=True)
me = fleet[host.name]

# What goes wrong on this host from here on fails this host alone.
with alone():
    lock_host(name="Lock the host against other deploys")
    give_way(name="Change nothing where another deploy is at work")
    platform(me, fleet)
    # What is not there, and what does not fit, is refused before anything is changed.
    if me.runs(Driver):
        gpus(me)
    if me.runs(Ollama):
        instances(me)
        memory(me)
    if me.runs(Vllm):
        vllm_fits(me)
    room_for_weights(me)
    began()
    # The walls come first: nothing that is installed below is ever open to everybody.
    firewall(me, fleet)

    # Before the GPU hosts, which are taken out of it to restart, and let in when they are ready: it
    # answers 503 until the first of them is.
    if me.runs(Gateway):
        gateway(me, fleet)

    if any(item.runs(Gateway) for item in fleet):
        barrier(name="Wait for the gateways")

    if me.runs(Driver):
        # Before anybody is interrupted.
        served_again(me, fleet)
        # Before what uses the GPU; may reboot the host.
        driver(me, fleet)
        gpus_driven(me)
    if me.runs(Ollama):
        memory_with_driver(me)

    if me.runs(Docker):
        docker(me, fleet)
        container_toolkit(me)

    # Before the runtimes that read them.
    weights(me, fleet)

    if me.runs(Ollama):
        ollama(me, fleet)
        gpus_found(me, fleet)
        models(me)
        placement(me)

    if me.runs(Vllm):
        vllm(me, fleet)

    if me.runs(Driver):
        # Last of what makes it ready.
        serving(me, fleet)

    # Once nothing reads those of before.
    pruned_weights(me)

    # Asks the gateway, and starts without it too.
    if me.runs(Webui):
        webui(me, fleet)

    if any(item.runs(Dify) for item in fleet):
        barrier(name="Wait for models and gateway")

    # Last: its set-up asks the models a question, through the gateway where that is declared.
    if me.runs(Dify):
        dify(me, fleet)

    # No gateway sends anything any more to what goes here.
    barrier(name="Wait for the gateways' new configuration")
    forgone(me, fleet)

    # What comes this far is as declared.
    ended(me, fleet)

outlook(fleet)
