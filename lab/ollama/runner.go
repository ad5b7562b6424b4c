package main

// The child process lib/ollama/llama-server: its command line, its health, its end, and asking it.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// libDir is found beside the binary itself, through any link to it.
func libDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(exe), "..", "lib", "ollama"), nil
}

// childClient opens a connection for each request: the child closes kept ones when it likes, and a
// POST that was just sent on one would be lost.
var childClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Runner is one loaded model's child.
type Runner struct {
	cmd      *exec.Cmd
	url      string
	slots    chan struct{}
	ended    chan struct{}
	mu       sync.Mutex
	lastLine string
}

func batchSize(head *GGUF, ctx int) int {
	switch {
	case head.pooled():
		return 2048
	case ctx <= 4096:
		return 512
	case ctx <= 32768:
		return 1024
	}
	return 2048
}

func runnerArgs(m *Model, head *GGUF, o Options, port, parallel int) []string {
	flash := "auto"
	if envVar("OLLAMA_FLASH_ATTENTION") != "" {
		flash = map[bool]string{true: "on", false: "off"}[envBool("OLLAMA_FLASH_ATTENTION")]
	}
	ctx := o.NumCtx * parallel
	batch := batchSize(head, ctx)
	if o.NumBatch > 0 {
		batch = o.NumBatch
	}
	args := []string{"--model", m.Weights, "--port", strconv.Itoa(port), "--host", "127.0.0.1", "--no-webui", "--offline",
		"-c", strconv.Itoa(ctx), "-np", strconv.Itoa(parallel), "--log-verbosity", "4", "--no-log-prefix",
		"--no-log-timestamps", "--load-mode", "none", "--flash-attn", flash}
	if kv := envVar("OLLAMA_KV_CACHE_TYPE"); kv != "" {
		args = append(args, "--cache-type-k", kv, "--cache-type-v", kv)
	}
	args = append(args, "-b", strconv.Itoa(batch), "-ub", strconv.Itoa(batch))
	if !o.noShift {
		args = append(args, "--context-shift")
	}
	args = append(args, "--keep", strconv.Itoa(o.NumKeep))
	if head.pooled() {
		args = append(args, "--embedding")
	}
	if o.NumThread > 0 {
		args = append(args, "-t", strconv.Itoa(o.NumThread))
	}
	if m.hasTemplate() {
		args = append(args, "--no-jinja", "--chat-template", "chatml")
	}
	return args
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startRunner starts the child with this process's environment and the library folder ahead of others.
func startRunner(m *Model, head *GGUF, o Options, parallel int) (*Runner, error) {
	dir, err := libDir()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(dir, "llama-server"), runnerArgs(m, head, o, port, parallel)...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.TrimSuffix(dir+":"+os.Getenv("LD_LIBRARY_PATH"), ":"))
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd.Stdout, cmd.Stderr = in, in
	r := &Runner{cmd: cmd, url: fmt.Sprintf("http://127.0.0.1:%d", port), slots: make(chan struct{}, parallel), ended: make(chan struct{})}
	logInfo("server.go", "starting llama-server", "cmd", cmd.String())
	if err := cmd.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("error starting llama-server: %w", err)
	}
	go r.readLog(out)
	go func() {
		_ = cmd.Wait()
		close(r.ended)
	}()
	return r, nil
}

// readLog passes the child's lines on and keeps the last error for the answer to a failed load.
func (r *Runner) readLog(out io.ReadCloser) {
	defer out.Close()
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		fmt.Fprintln(os.Stderr, line)
		if strings.Contains(line, "rror") {
			r.mu.Lock()
			r.lastLine = strings.TrimSpace(line)
			r.mu.Unlock()
		}
	}
}

func (r *Runner) healthy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/health", nil)
	if err != nil {
		return false
	}
	resp, err := childClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (r *Runner) waitUntilRunning(ctx context.Context) error {
	deadline := time.Now().Add(envLoadTimeout())
	for !r.healthy(ctx) {
		select {
		case <-r.ended:
			r.mu.Lock()
			defer r.mu.Unlock()
			return fmt.Errorf("llama runner process has terminated: %s", first(r.lastLine, fmt.Sprint(r.cmd.ProcessState)))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) && envLoadTimeout() < 1<<62 {
			return errors.New("timed out waiting for llama runner to start")
		}
	}
	return nil
}

// stop kills the child and waits for its end.
func (r *Runner) stop() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

func (r *Runner) ask(ctx context.Context, path string, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := childClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		var said struct {
			Error struct{ Message string }
		}
		if json.Unmarshal(text, &said) != nil || said.Error.Message == "" {
			return nil, errors.New(strings.TrimSpace(string(text)))
		}
		return nil, refuse(resp.StatusCode, "%s", said.Error.Message)
	}
	return resp, nil
}

// read asks, and takes the answer as JSON.
func (r *Runner) read(ctx context.Context, path string, body, into any) error {
	resp, err := r.ask(ctx, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

func (r *Runner) tokens(ctx context.Context, text string) ([]int, error) {
	var answer struct{ Tokens []int }
	err := r.read(ctx, "/tokenize", map[string]any{"content": text, "add_special": true, "parse_special": true}, &answer)
	return answer.Tokens, err
}

// fit gives a text as it is, or, where that is longer than the context, its first tokens and its end.
func (r *Runner) fit(ctx context.Context, text string, keep, limit int) (any, error) {
	if len(text) < limit { // a token is a byte or more
		return text, nil
	}
	tokens, err := r.tokens(ctx, text)
	if err != nil || len(tokens) < limit {
		return text, err
	}
	keep = larger(0, int(smaller(int64(keep), int64(limit/2))))
	return append(tokens[:keep:keep], tokens[len(tokens)-(limit-1-keep):]...), nil
}

// take waits for one of the child's slots: OLLAMA_NUM_PARALLEL requests run, the others wait here.
func (r *Runner) take(ctx context.Context) (release func(), err error) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Logprob is how likely a token was, and, where asked for, others in its place.
type Logprob struct {
	Token   string    `json:"token"`
	Logprob float64   `json:"logprob"`
	Bytes   []int     `json:"bytes,omitempty"`
	Top     []Logprob `json:"top_logprobs,omitempty"`
}

// Chunk is a piece of an answer; the last one carries the reason and the counts.
type Chunk struct {
	Content  string    `json:"content"`
	Stop     bool      `json:"stop"`
	StopType string    `json:"stop_type"`
	Logprobs []Logprob `json:"completion_probabilities"`
	Timings  struct {
		CacheN      int     `json:"cache_n"`
		PromptN     int     `json:"prompt_n"`
		PromptMS    float64 `json:"prompt_ms"`
		PredictedN  int     `json:"predicted_n"`
		PredictedMS float64 `json:"predicted_ms"`
	} `json:"timings"`
}

// complete streams an answer. The end of the caller's context ends the generation.
func (r *Runner) complete(ctx context.Context, body map[string]any, each func(Chunk) error) error {
	release, err := r.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	resp, err := r.ask(ctx, "/completion", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		data := bytes.TrimPrefix(scanner.Bytes(), []byte("data: "))
		if len(data) == 0 || data[0] != '{' {
			continue
		}
		var c Chunk
		if err := json.Unmarshal(data, &c); err != nil {
			return fmt.Errorf("error unmarshalling llm prediction response: %w", err)
		}
		if c.Content != "" || c.Stop {
			if err := each(c); err != nil {
				return err
			}
		}
		if c.Stop {
			return nil
		}
	}
	err = scanner.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("an error was encountered while running the model: %w", err)
}

func completionBody(prompt any, format json.RawMessage, o Options) map[string]any {
	predict := o.NumPredict
	if limit := 10 * o.NumCtx; predict < 0 || predict > limit {
		predict = limit
	}
	body := map[string]any{"prompt": prompt, "stream": true, "cache_prompt": true, "n_predict": predict, "n_keep": o.NumKeep,
		"seed": o.Seed, "temperature": o.Temperature, "top_k": o.TopK, "top_p": o.TopP, "min_p": o.MinP,
		"typical_p": o.TypicalP, "repeat_last_n": o.RepeatLastN, "repeat_penalty": o.RepeatPenalty,
		"presence_penalty": o.PresencePenalty, "frequency_penalty": o.FrequencyPenalty, "stop": o.Stop}
	switch text := strings.TrimSpace(string(format)); {
	case text == `"json"`:
		body["json_schema"] = map[string]any{"type": "object"}
	case strings.HasPrefix(text, "{"):
		body["json_schema"] = format
	}
	return body
}
