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

// parseDuration takes a Go duration or seconds.
func parseDuration(s string) (time.Duration, bool) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, true
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Duration(n) * time.Second, true
	}
	return 0, false
}

// envKeepAlive: a negative value is for ever.
func envKeepAlive() time.Duration {
	keep := 5 * time.Minute
	if d, ok := parseDuration(envVar("OLLAMA_KEEP_ALIVE")); ok {
		keep = d
	}
	if keep < 0 {
		return math.MaxInt64
	}
	return keep
}

// envLoadTimeout: zero and less is for ever.
func envLoadTimeout() time.Duration {
	limit := 5 * time.Minute
	if d, ok := parseDuration(envVar("OLLAMA_LOAD_TIMEOUT")); ok {
		limit = d
	}
	if limit <= 0 {
		return math.MaxInt64
	}
	return limit
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
	values := map[string]any{
		"OLLAMA_HOST": envHost(), "OLLAMA_MODELS": envModels(), "OLLAMA_ORIGINS": envOrigins(),
		"OLLAMA_KEEP_ALIVE": envKeepAlive(), "OLLAMA_LOAD_TIMEOUT": envLoadTimeout(),
		"OLLAMA_CONTEXT_LENGTH":    envUint("OLLAMA_CONTEXT_LENGTH", 0),
		"OLLAMA_NUM_PARALLEL":      envUint("OLLAMA_NUM_PARALLEL", 1),
		"OLLAMA_MAX_LOADED_MODELS": envUint("OLLAMA_MAX_LOADED_MODELS", 0),
		"OLLAMA_MAX_QUEUE":         envUint("OLLAMA_MAX_QUEUE", 512),
		"OLLAMA_GPU_OVERHEAD":      envUint("OLLAMA_GPU_OVERHEAD", 0),
		"OLLAMA_REMOTES":           "[ollama.com]",
	}
	for _, key := range []string{"OLLAMA_DEBUG", "OLLAMA_FLASH_ATTENTION", "OLLAMA_NOPRUNE", "OLLAMA_NOHISTORY",
		"OLLAMA_NO_CLOUD", "OLLAMA_SCHED_SPREAD", "OLLAMA_DEBUG_LOG_REQUESTS"} {
		values[key] = envBool(key)
	}
	for _, key := range []string{"OLLAMA_KV_CACHE_TYPE", "OLLAMA_LLM_LIBRARY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
		"http_proxy", "https_proxy", "no_proxy", "CUDA_VISIBLE_DEVICES"} {
		values[key] = envVar(key)
	}
	var pairs []string
	for key, value := range values {
		pairs = append(pairs, fmt.Sprintf("%s:%v", key, value))
	}
	sort.Strings(pairs)
	return "map[" + strings.Join(pairs, " ") + "]"
}

func userAgent() string {
	return fmt.Sprintf("ollama/%s (%s %s) Go/%s", Version, runtime.GOARCH, runtime.GOOS, runtime.Version())
}
