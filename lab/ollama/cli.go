package main

// The command line: the server, and the version of both sides.

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

func run(args []string) error {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	switch args[0] {
	case "serve", "start":
		return serve()
	case "-v", "--version":
		printVersion()
		return nil
	case "-h", "--help", "help":
		fmt.Print("Usage:\n  ollama serve\n  ollama --version\n")
		return nil
	}
	return fmt.Errorf("unknown command %q for \"ollama\"", args[0])
}

func printVersion() {
	var answer struct{ Version string }
	resp, err := http.Get(clientURL() + "/api/version")
	if err == nil {
		defer resp.Body.Close()
		err = json.NewDecoder(resp.Body).Decode(&answer)
	}
	if err != nil {
		fmt.Println("Warning: could not connect to a running Ollama instance")
		fmt.Printf("Warning: client version is %s\n", Version)
		return
	}
	fmt.Printf("ollama version is %s\n", answer.Version)
	if answer.Version != Version {
		fmt.Printf("Warning: client version is %s\n", Version)
	}
}

// clientURL is where the client finds the server: a server listening on every address is asked on loopback.
func clientURL() string {
	u := envHost()
	host, port, _ := net.SplitHostPort(u.Host)
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}

func humanBytes(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "KB"}} {
		if n >= unit.size {
			value := float64(n) / float64(unit.size)
			if value >= 10 {
				return fmt.Sprintf("%d %s", int(value), unit.name)
			}
			return fmt.Sprintf("%.1f %s", value, unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// drop reads a body to its end, so that its connection can be used again.
func drop(r io.ReadCloser) {
	_, _ = io.Copy(io.Discard, r)
	r.Close()
}
