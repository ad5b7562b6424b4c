package main

// The GPUs that this process can use, found as CUDA finds them: the module is loaded, the device nodes may
// be opened from inside the sandbox, CUDA_VISIBLE_DEVICES names them, and the fabric of NVSwitches is up.
// Whatever of it fails leaves the CPU, without an error and without a reason in the log: the child that looks
// for GPUs tells CUDA's own words, which are thrown away unless OLLAMA_DEBUG is 2.
//
// The lab's kernel keeps its state in /run/lab-gpu: a hardened unit has a /proc of its own (ProtectProc),
// and a container its own /sys, into which the lab cannot put anything.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

const (
	kernelState = "/run/lab-gpu"
	gib         = 1 << 30
	mib         = 1 << 20
)

// Device is one GPU.
type Device struct {
	UUID, Name, PCI string
	Minor           int
	Total           int64
	Compute         string
}

// devices are what was found when the server started.
var devices []Device

// discover looks for GPUs once, as the server does before it answers.
func discover() {
	found, err := cudaDevices(kernelState, "/dev")
	if err != nil && envVar("OLLAMA_DEBUG") == "2" {
		fmt.Fprintln(os.Stderr, "ggml_cuda_init: failed to initialize CUDA: "+err.Error())
	}
	devices = supported(found, driverBranch(kernelState))
	for i, d := range devices {
		logInfo("types.go", "inference compute", "id", d.UUID, "library", "CUDA", "compute", d.Compute,
			"name", fmt.Sprintf("CUDA%d", i), "description", d.Name, "libdirs", "ollama,cuda_v13", "driver", "13.0",
			"pci_id", d.PCI, "type", "discrete", "total", gibText(d.Total), "available", gibText(d.Total-mib*450))
	}
	if len(devices) == 0 {
		total := memTotal()
		logInfo("types.go", "inference compute", "id", "cpu", "library", "cpu", "compute", "", "name", "cpu",
			"description", "cpu", "libdirs", "ollama", "driver", "", "pci_id", "", "type", "",
			"total", gibText(total), "available", gibText(total))
	}
	logInfo("routes.go", "vram-based default context", "total_vram", gibText(totalMemory()), "default_num_ctx", standardContext())
}

// cudaDevices gives the visible devices, or the words of CUDA's error.
func cudaDevices(state, dev string) ([]Device, error) {
	if driverBranch(state) == 0 {
		return nil, errors.New("CUDA driver version is insufficient for CUDA runtime version")
	}
	all := listDevices(state)
	list, set := os.LookupEnv("CUDA_VISIBLE_DEVICES")
	visible := visibleDevices(all, list, set)
	if !reachable(filepath.Join(dev, "nvidiactl")) {
		return nil, errors.New("no CUDA-capable device is detected")
	}
	var open []Device
	for _, d := range visible {
		if reachable(filepath.Join(dev, "nvidia"+strconv.Itoa(d.Minor))) {
			open = append(open, d)
		}
	}
	if len(open) == 0 {
		return nil, errors.New("no CUDA-capable device is detected")
	}
	if !reachable(filepath.Join(dev, "nvidia-uvm")) {
		return nil, errors.New("unknown error")
	}
	if exists(filepath.Join(state, "switches")) && !exists(filepath.Join(state, "fabric")) {
		return nil, errors.New("system not yet initialized")
	}
	return open, nil
}

// reachable: the node may be opened. The lab's real kernel has no driver behind it and then answers ENXIO;
// a closed DevicePolicy answers EPERM before that.
func reachable(node string) bool {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err == nil || errors.Is(err, syscall.ENXIO)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// driverBranch is 580 of 580.178.04; 0 while no module is loaded.
func driverBranch(state string) int {
	data, err := os.ReadFile(filepath.Join(state, "module", "nvidia", "version"))
	if err != nil {
		return 0
	}
	branch, _, _ := strings.Cut(strings.TrimSpace(string(data)), ".")
	n, _ := strconv.Atoi(branch)
	return n
}

// listDevices reads what the module tells of each GPU, in the order of the bus.
func listDevices(state string) (all []Device) {
	paths, _ := filepath.Glob(filepath.Join(state, "driver", "nvidia", "gpus", "*", "information"))
	sort.Strings(paths)
	for _, path := range paths {
		address := filepath.Base(filepath.Dir(path))
		d := Device{PCI: address}
		for key, value := range fields(path) {
			switch key {
			case "Model":
				d.Name = value
			case "GPU UUID":
				d.UUID = value
			case "Device Minor":
				d.Minor, _ = strconv.Atoi(value)
			}
		}
		figures, _ := os.ReadFile(filepath.Join(state, "figures", address))
		if words := strings.Fields(string(figures)); len(words) == 2 {
			n, _ := strconv.ParseInt(words[0], 10, 64)
			d.Total, d.Compute = n*mib, words[1]
		}
		all = append(all, d)
	}
	return all
}

func fields(path string) map[string]string {
	data, _ := os.ReadFile(path)
	values := map[string]string{}
	for _, line := range strings.Split(string(data), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return values
}

// visibleDevices: indices, or UUIDs of which the beginning is enough. The first entry that names none ends
// the list, with those before it: CUDA's own rule.
func visibleDevices(all []Device, list string, set bool) []Device {
	if !set {
		return all
	}
	var visible []Device
	for _, entry := range strings.Split(list, ",") {
		d := named(all, strings.TrimSpace(entry))
		if d == nil {
			break
		}
		visible = append(visible, *d)
	}
	return visible
}

func named(all []Device, entry string) *Device {
	if n, err := strconv.Atoi(entry); err == nil {
		if n >= 0 && n < len(all) {
			return &all[n]
		}
		return nil
	}
	for i := range all {
		if strings.HasPrefix(entry, "GPU-") && strings.HasPrefix(all[i].UUID, entry) {
			return &all[i]
		}
	}
	return nil
}

// supported drops what Ollama drops: GPUs before Volta need a driver of branch 570, all others 550.
func supported(found []Device, branch int) (kept []Device) {
	for _, d := range found {
		floor := 550
		if d.Compute < "7" {
			floor = 570
		}
		if branch < floor {
			logWarn("cuda_compat.go", "NVIDIA driver too old", "device", d.Name, "compute", d.Compute,
				"driver", branch, "required_driver", fmt.Sprintf("%d or newer", floor))
			continue
		}
		kept = append(kept, d)
	}
	return kept
}

func totalMemory() (total int64) {
	for _, d := range devices {
		total += d.Total
	}
	return total
}

// standardContext is the default context, by the memory of all visible GPUs.
func standardContext() int {
	total := totalMemory()
	switch {
	case total >= 47*gib:
		return 262144
	case total >= 23*gib:
		return 32768
	}
	return 4096
}

// placeable is how much of the GPUs a model may take: llama.cpp leaves a gigabyte of each.
func placeable(taken int64) int64 {
	room := -taken
	for _, d := range devices {
		room += d.Total - gib
	}
	if room < 0 {
		return 0
	}
	return room
}

// onGPU is how much of a model of this size goes there: all of it, or whole layers, or nothing.
func onGPU(size, room int64, layers int) int64 {
	if size <= room || layers <= 0 {
		return smaller(size, room)
	}
	each := size / int64(layers+1)
	return room / each * each
}

func larger(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func smaller(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

func memTotal() int64 {
	words := strings.Fields(fields("/proc/meminfo")["MemTotal"])
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(words[0], 10, 64)
	return n << 10
}

func gibText(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/gib) }
