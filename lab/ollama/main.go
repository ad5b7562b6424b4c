// Command ollama is the lab's stand-in for Ollama's release binary (github.com/ollama/ollama): see README.md.
//
// It is written in Go because the real one is: net/http, ParseBool and the error texts behave alike, and
// /proc/PID/exe is the binary itself.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
)

// Version is set when linking, so that two releases can be built from one source.
var Version = "0.0.0"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// run is the command line: the server, and the version of both sides.
func run(args []string) error {
	switch command := first(append(args, "")...); command {
	case "serve", "start":
		return serve()
	case "-v", "--version":
		printVersion()
		return nil
	default:
		return fmt.Errorf("unknown command %q for \"ollama\"", command)
	}
}

func printVersion() {
	var answer struct{ Version string }
	resp, err := http.Get(clientURL() + "/api/version")
	if err == nil {
		defer resp.Body.Close()
		err = json.NewDecoder(resp.Body).Decode(&answer)
	}
	if err == nil {
		fmt.Printf("ollama version is %s\n", answer.Version)
	} else {
		fmt.Println("Warning: could not connect to a running Ollama instance")
	}
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
