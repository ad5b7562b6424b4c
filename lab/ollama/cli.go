package main

// The command line: a thin client of the server's own API, as in the real one.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

const usage = `Usage:
  ollama [flags]
  ollama [command]

Available Commands:
  serve       Start Ollama
  show        Show information for a model
  pull        Pull a model from a registry
  list        List models
  ps          List running models
  cp          Copy a model
  rm          Remove a model

Flags:
  -v, --version   Show version information
`

func run(args []string) error {
	if len(args) == 0 {
		fmt.Print(usage)
		return nil
	}
	command, rest := args[0], args[1:]
	commands := map[string]func([]string) error{
		"serve": func([]string) error { return serve() },
		"start": func([]string) error { return serve() },
		"list":  cliList, "ls": cliList,
		"ps": cliPs, "pull": cliPull, "show": cliShow, "cp": cliCopy, "rm": cliRemove,
	}
	switch command {
	case "-v", "--version":
		printVersion()
		return nil
	case "-h", "--help", "help":
		fmt.Print(usage)
		return nil
	}
	if fn, ok := commands[command]; ok {
		return fn(rest)
	}
	return fmt.Errorf("unknown command %q for \"ollama\"", command)
}

func printVersion() {
	var answer struct {
		Version string `json:"version"`
	}
	if err := apiCall(http.MethodGet, "/api/version", nil, &answer); err != nil {
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

func apiStream(method, path string, body any, line func([]byte) error) error {
	var data bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&data).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, clientURL()+path, &data)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", userAgent())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return errors.New("could not connect to ollama server, run 'ollama serve' to start it")
	}
	defer resp.Body.Close()
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, 8<<20)
	for scanner.Scan() {
		var failure struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(scanner.Bytes(), &failure) == nil && failure.Error != "" {
			return errors.New(failure.Error)
		}
		if err := line(scanner.Bytes()); err != nil {
			return err
		}
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s", resp.Status)
	}
	return scanner.Err()
}

func apiCall(method, path string, body, answer any) error {
	return apiStream(method, path, body, func(line []byte) error {
		if answer == nil {
			return nil
		}
		return json.Unmarshal(line, answer)
	})
}

func table(header string, rows [][]string) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 4, ' ', 0)
	fmt.Fprintln(w, header)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
}

func cliList(args []string) error {
	var answer struct{ Models []ModelEntry }
	if err := apiCall(http.MethodGet, "/api/tags", nil, &answer); err != nil {
		return err
	}
	var rows [][]string
	for _, m := range answer.Models {
		if len(args) > 0 && !strings.HasPrefix(strings.ToLower(m.Name), strings.ToLower(args[0])) {
			continue
		}
		rows = append(rows, []string{m.Name, m.Digest[:12], humanBytes(m.Size), humanAgo(m.ModifiedAt)})
	}
	table("NAME\tID\tSIZE\tMODIFIED", rows)
	return nil
}

func cliPs([]string) error {
	var answer struct{ Models []RunningEntry }
	if err := apiCall(http.MethodGet, "/api/ps", nil, &answer); err != nil {
		return err
	}
	var rows [][]string
	for _, m := range answer.Models {
		until := "Stopping..."
		if left := time.Until(m.ExpiresAt); left > 24*365*time.Hour {
			until = "Forever"
		} else if left > 0 {
			until = left.Round(time.Second).String() + " from now"
		}
		rows = append(rows, []string{m.Name, m.Digest[:12], humanBytes(m.Size), "100% CPU",
			fmt.Sprint(m.ContextLength), until})
	}
	table("NAME\tID\tSIZE\tPROCESSOR\tCONTEXT\tUNTIL", rows)
	return nil
}

func oneName(args []string) (name string, insecure bool, err error) {
	for _, arg := range args {
		switch {
		case arg == "--insecure":
			insecure = true
		case strings.HasPrefix(arg, "-"):
		case name == "":
			name = arg
		default:
			return "", false, fmt.Errorf("accepts 1 arg(s), received %d", len(args))
		}
	}
	if name == "" {
		return "", false, errors.New("accepts 1 arg(s), received 0")
	}
	return name, insecure, nil
}

func cliPull(args []string) error {
	name, insecure, err := oneName(args)
	if err != nil {
		return err
	}
	last := ""
	return apiStream(http.MethodPost, "/api/pull", map[string]any{"model": name, "insecure": insecure}, func(line []byte) error {
		var p Progress
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		if p.Status != last {
			fmt.Fprintln(os.Stderr, p.Status)
			last = p.Status
		}
		return nil
	})
}

func cliShow(args []string) error {
	name, _, err := oneName(args)
	if err != nil {
		return err
	}
	var answer map[string]any
	if err := apiCall(http.MethodPost, "/api/show", map[string]any{"model": name}, &answer); err != nil {
		return err
	}
	details, _ := answer["details"].(map[string]any)
	fmt.Println("  Model")
	for _, key := range []string{"family", "parameter_size", "quantization_level"} {
		fmt.Printf("    %-20s%v\n", key, details[key])
	}
	fmt.Printf("\n  Capabilities\n    %v\n\n  Parameters\n%v\n", answer["capabilities"], answer["parameters"])
	return nil
}

func cliCopy(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("accepts 2 arg(s), received %d", len(args))
	}
	if err := apiCall(http.MethodPost, "/api/copy", map[string]any{"source": args[0], "destination": args[1]}, nil); err != nil {
		return err
	}
	fmt.Printf("copied '%s' to '%s'\n", args[0], args[1])
	return nil
}

func cliRemove(args []string) error {
	for _, name := range args {
		if err := apiCall(http.MethodDelete, "/api/delete", map[string]any{"model": name}, nil); err != nil {
			return err
		}
		fmt.Printf("deleted '%s'\n", name)
	}
	return nil
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

func humanAgo(t time.Time) string {
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// drop reads a body to its end, so that its connection can be used again.
func drop(r io.ReadCloser) {
	_, _ = io.Copy(io.Discard, r)
	r.Close()
}
