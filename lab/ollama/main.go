// Command ollama is the lab's stand-in for Ollama's release binary (github.com/ollama/ollama).
//
// It stands for: bin/ollama of ollama-linux-amd64.tar.zst, as a server, a client and the parent of
// lib/ollama/llama-server. It is written in Go because the real one is: net/http, ParseBool and the
// error texts behave alike, and /proc/PID/exe is the binary itself.
//
// It keeps what a deploy can trip on: the environment and its parsing, the blobs and manifests on
// disk, the registry protocol with every oddity seen, errors inside an HTTP 200 stream, the
// Host and Origin rules, load and unload, the queue, the child process and how it dies, and the
// native, OpenAI and Anthropic endpoints, and the silent ways from the GPU to the CPU. Inference is real, though
// never on a GPU: the child is llama.cpp.
//
// It does not keep: push, Modelfiles, images, cloud models, safetensors, the sign-in of ollama.com.
package main

import (
	"fmt"
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
