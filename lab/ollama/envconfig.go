package main

// The environment: names, defaults and parsing of the real one (envconfig/config.go).

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// envVar is a variable without surrounding spaces and quotes.
func envVar(key string) string {
	return strings.Trim(strings.TrimSpace(os.Getenv(key)), "\"'")
}

// envBool takes any value that is no boolean for true: OLLAMA_NOPRUNE=no turns it on.
func envBool(key string) bool {
	s := envVar(key)
	if s == "" {
		return false
	}
	b, err := strconv.ParseBool(s)
	return err != nil || b
}

func envUint(key string, standard uint) uint {
	s := envVar(key)
	if s == "" {
		return standard
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		logWarn("config.go", "invalid environment variable, using default", "key", key, "value", s, "default", standard)
		return standard
	}
	return uint(n)
}

// envDuration takes a Go duration or seconds; a negative value is for ever.
func envDuration(key string) time.Duration {
	s, d := envVar(key), 5*time.Minute
	if given, err := time.ParseDuration(s); err == nil {
		d = given
	} else if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		d = time.Duration(n) * time.Second
	}
	if d < 0 {
		return math.MaxInt64
	}
	return d
}

func envKeepAlive() time.Duration { return envDuration("OLLAMA_KEEP_ALIVE") }

// envLoadTimeout: zero is for ever, too.
func envLoadTimeout() time.Duration {
	if d := envDuration("OLLAMA_LOAD_TIMEOUT"); d > 0 {
		return d
	}
	return math.MaxInt64
}

// envHost is the address to listen on, or to call.
func envHost() *url.URL {
	standard := "11434"
	scheme, hostport, ok := strings.Cut(envVar("OLLAMA_HOST"), "://")
	switch {
	case !ok:
		scheme, hostport = "http", scheme
	case scheme == "http":
		standard = "80"
	case scheme == "https":
		standard = "443"
	}
	hostport, path, _ := strings.Cut(hostport, "/")
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = "127.0.0.1", standard
		if ip := net.ParseIP(strings.Trim(hostport, "[]")); ip != nil {
			host = ip.String()
		} else if hostport != "" {
			host = hostport
		}
	}
	if n, err := strconv.ParseInt(port, 10, 32); err != nil || n > 65535 || n < 0 {
		logWarn("config.go", "invalid port, using default", "port", port, "default", standard)
		port = standard
	}
	return &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: path}
}

func envModels() string {
	if s := envVar("OLLAMA_MODELS"); s != "" {
		return s
	}
	home, err := os.UserHomeDir()
	if err != nil {
		panic(err)
	}
	return filepath.Join(home, ".ollama", "models")
}

// envOrigins are the browser origins allowed, with the ones that are always added.
func envOrigins() []string {
	var origins []string
	if s := envVar("OLLAMA_ORIGINS"); s != "" {
		origins = strings.Split(s, ",")
	}
	for _, host := range []string{"localhost", "127.0.0.1", "0.0.0.0"} {
		for _, scheme := range []string{"http", "https"} {
			origins = append(origins, scheme+"://"+host, scheme+"://"+net.JoinHostPort(host, "*"))
		}
	}
	return append(origins, "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
}

// envValues is what the line "server config" shows.
func envValues() string {
	values := []string{"OLLAMA_REMOTES:[ollama.com]"}
	add := func(key string, value any) { values = append(values, fmt.Sprintf("%s:%v", key, value)) }
	add("OLLAMA_HOST", envHost())
	add("OLLAMA_MODELS", envModels())
	add("OLLAMA_ORIGINS", envOrigins())
	add("OLLAMA_KEEP_ALIVE", envKeepAlive())
	add("OLLAMA_LOAD_TIMEOUT", envLoadTimeout())
	for key, standard := range map[string]uint{"OLLAMA_CONTEXT_LENGTH": 0, "OLLAMA_NUM_PARALLEL": 1,
		"OLLAMA_MAX_LOADED_MODELS": 0, "OLLAMA_MAX_QUEUE": 512, "OLLAMA_GPU_OVERHEAD": 0} {
		add(key, envUint(key, standard))
	}
	for _, key := range strings.Fields("OLLAMA_DEBUG OLLAMA_FLASH_ATTENTION OLLAMA_NOPRUNE OLLAMA_NOHISTORY " +
		"OLLAMA_NO_CLOUD OLLAMA_SCHED_SPREAD OLLAMA_DEBUG_LOG_REQUESTS") {
		add(key, envBool(key))
	}
	for _, key := range strings.Fields("OLLAMA_KV_CACHE_TYPE OLLAMA_LLM_LIBRARY HTTP_PROXY HTTPS_PROXY NO_PROXY " +
		"http_proxy https_proxy no_proxy CUDA_VISIBLE_DEVICES") {
		add(key, envVar(key))
	}
	sort.Strings(values)
	return "map[" + strings.Join(values, " ") + "]"
}

func userAgent() string {
	return fmt.Sprintf("ollama/%s (%s %s) Go/%s", Version, runtime.GOARCH, runtime.GOOS, runtime.Version())
}
