package main

// POST /api/generate and /api/chat.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"strings"
	"time"
)

const cloudDisabled = "ollama cloud is disabled: remote model is unavailable"

// KeepAlive is the request's keep_alive: seconds or a duration, negative for ever.
type KeepAlive struct{ value *time.Duration }

// UnmarshalJSON takes numbers and strings.
func (k *KeepAlive) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var d time.Duration
	var seconds float64
	var text string
	if err := json.Unmarshal(data, &seconds); err == nil {
		d = time.Duration(seconds * float64(time.Second))
	} else if err := json.Unmarshal(data, &text); err == nil {
		if d, err = time.ParseDuration(text); err != nil {
			return err
		}
	} else {
		return fmt.Errorf("Unsupported type: '%s'", data)
	}
	if d < 0 {
		d = math.MaxInt64
	}
	k.value = &d
	return nil
}

func (k KeepAlive) zero() bool { return k.value != nil && *k.value == 0 }

type inferRequest struct {
	Model     string          `json:"model"`
	Name      string          `json:"name"`
	Prompt    string          `json:"prompt"`
	Suffix    string          `json:"suffix"`
	Images    [][]byte        `json:"images"`
	Truncate  *bool           `json:"truncate"`
	Shift     *bool           `json:"shift"`
	System    string          `json:"system"`
	Template  string          `json:"template"`
	Raw       bool            `json:"raw"`
	Messages  []Message       `json:"messages"`
	Tools     []any           `json:"tools"`
	Stream    *bool           `json:"stream"`
	Format    json.RawMessage `json:"format"`
	Options   map[string]any  `json:"options"`
	KeepAlive KeepAlive       `json:"keep_alive"`
	Think     Think           `json:"think"`

	Logprobs    bool `json:"logprobs"`
	TopLogprobs int  `json:"top_logprobs"`
}

// Answer is a line of either endpoint: Message for chat, Response for generate.
type Answer struct {
	Model      string    `json:"model"`
	CreatedAt  time.Time `json:"created_at"`
	Message    *Message  `json:"message,omitempty"`
	Response   *string   `json:"response,omitempty"`
	Done       bool      `json:"done"`
	DoneReason string    `json:"done_reason,omitempty"`
	Context    []int     `json:"context,omitempty"` // what was read and said, of generate
	Logprobs   []Logprob `json:"logprobs,omitempty"`

	TotalDuration      time.Duration `json:"total_duration,omitempty"`
	LoadDuration       time.Duration `json:"load_duration,omitempty"`
	PromptEvalCount    int           `json:"prompt_eval_count,omitempty"`
	PromptEvalDuration time.Duration `json:"prompt_eval_duration,omitempty"`
	EvalCount          int           `json:"eval_count,omitempty"`
	EvalDuration       time.Duration `json:"eval_duration,omitempty"`
}

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	var req inferRequest
	if !readJSON(w, r, &req) {
		return
	}
	if req.Raw && (req.Template != "" || req.System != "") {
		writeError(w, http.StatusBadRequest, "raw mode does not support template, system, or context")
		return
	}
	s.infer(w, r, &req, "generate", req.Prompt == "", func(content string) (*Message, *string) {
		return nil, &content
	}, func(m *Model) (string, error) {
		if req.Raw {
			return req.Prompt, nil
		}
		t := m.Template
		if req.Template != "" {
			var err error
			if t, err = parseTemplate(req.Template); err != nil {
				return "", err
			}
		}
		messages := append([]Message{}, m.Messages...)
		if system := first(req.System, m.System); system != "" {
			messages = append([]Message{{Role: "system", Content: system}}, messages...)
		}
		return t.prompt(append(messages, Message{Role: "user", Content: req.Prompt}), nil, req.Think)
	})
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	var req inferRequest
	if !readJSON(w, r, &req) {
		return
	}
	s.infer(w, r, &req, "chat", len(req.Messages) == 0, func(content string) (*Message, *string) {
		return &Message{Role: "assistant", Content: content}, nil
	}, func(m *Model) (string, error) {
		messages := append(append([]Message{}, m.Messages...), req.Messages...)
		if req.Messages[0].Role != "system" && m.System != "" {
			messages = append([]Message{{Role: "system", Content: m.System}}, messages...)
		}
		return m.Template.prompt(messages, req.Tools, req.Think)
	})
}

// infer is what both share: load (or unload, when nothing is asked), render, answer.
func (s *Server) infer(w http.ResponseWriter, r *http.Request, req *inferRequest, doing string, empty bool,
	wrap func(string) (*Message, *string), render func(*Model) (string, error)) {
	start := time.Now()
	asked := first(req.Model, req.Name)
	if isCloud(asked) {
		refuseCloud(w)
		return
	}
	if asked == "" && doing == "chat" {
		writeError(w, http.StatusBadRequest, "model is required")
		return
	}
	m, err := loadModel(asked)
	if err != nil {
		writeModelError(w, asked, err)
		return
	}
	answer := func(content string) Answer {
		message, response := wrap(content)
		return Answer{Model: asked, CreatedAt: time.Now().UTC(), Message: message, Response: response}
	}
	if empty && req.KeepAlive.zero() {
		s.sched.expire(m)
		last := answer("")
		last.Done, last.DoneReason = true, "unload"
		writeJSON(w, http.StatusOK, last)
		return
	}
	if err := m.check(asked, doing, req); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	options, err := optionsFor(m, req.Options)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	options.noShift = req.Shift != nil && !*req.Shift
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	loaded, err := s.sched.acquire(ctx, m, options, req.KeepAlive.value)
	if err != nil {
		failure := failed(scheduleError(asked, err))
		writeError(w, failure.status, failure.Error)
		return
	}
	defer s.sched.release(loaded)
	ready := time.Now()
	if empty {
		last := answer("")
		last.Done, last.DoneReason = true, "load"
		writeJSON(w, http.StatusOK, last)
		return
	}
	prompt, err := render(m)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	events := make(chan any)
	go func() {
		defer close(events)
		if t := req.called(); t != nil && doing == "chat" {
			err := loaded.call(ctx, t, prompt, req, options, func(call map[string]any, c Chunk) error {
				line, last := answer(""), answer("")
				line.Message.ToolCalls = []map[string]any{call}
				last.finish(c, start, ready)
				events <- line
				events <- last
				return nil
			})
			if err != nil {
				events <- Failure{err.Error(), http.StatusInternalServerError}
			}
			return
		}
		said := prompt
		err := loaded.answer(ctx, prompt, req, options, func(c Chunk) error {
			line := answer(c.Content)
			line.Logprobs = c.Logprobs
			said += c.Content
			if c.Stop {
				line.finish(c, start, ready)
				if doing == "generate" && !req.Raw {
					var err error
					if line.Context, err = loaded.runner.tokens(ctx, said); err != nil {
						return err
					}
				}
			}
			events <- line
			return nil
		})
		if err != nil {
			events <- Failure{err.Error(), http.StatusInternalServerError}
		}
	}()
	if req.Stream == nil || *req.Stream {
		stream(w, events)
		return
	}
	collect(w, events, wrap)
}

// answer cuts a prompt that is longer than the context, unless the request forbids it.
func (l *loadedModel) answer(ctx context.Context, prompt string, req *inferRequest, o Options, each func(Chunk) error) error {
	var fitting any = prompt
	if req.Truncate == nil || *req.Truncate {
		var err error
		if fitting, err = l.runner.fit(ctx, prompt, o.NumKeep, l.options.NumCtx); err != nil {
			return err
		}
	}
	body := completionBody(fitting, req.format(l.model), o)
	if req.Logprobs {
		body["n_probs"] = larger(1, req.TopLogprobs)
	}
	return l.runner.complete(ctx, body, func(c Chunk) error {
		for i := range c.Logprobs {
			if req.TopLogprobs == 0 {
				c.Logprobs[i].Top = nil
			}
		}
		return each(c)
	})
}

// format is the grammar to hold to. A model that thinks is let think first, and one that never ends it
// is never held to anything.
func (req *inferRequest) format(m *Model) json.RawMessage {
	if m.can("thinking") && (!req.Think.set || req.Think.on) {
		return nil
	}
	return req.Format
}

func (a *Answer) finish(c Chunk, start, ready time.Time) {
	a.Done, a.DoneReason = true, "stop"
	if c.StopType == "limit" {
		a.DoneReason = "length"
	}
	a.TotalDuration, a.LoadDuration = time.Since(start), ready.Sub(start)
	a.PromptEvalCount = c.Timings.PromptN + c.Timings.CacheN
	a.PromptEvalDuration = time.Duration(c.Timings.PromptMS * float64(time.Millisecond))
	a.EvalCount = c.Timings.PredictedN
	a.EvalDuration = time.Duration(c.Timings.PredictedMS * float64(time.Millisecond))
}

// collect answers once: the last line, with all the text.
func collect(w http.ResponseWriter, events <-chan any, wrap func(string) (*Message, *string)) {
	var text strings.Builder
	var last Answer
	var failure string
	var logprobs []Logprob
	var calls []map[string]any
	for event := range events {
		switch e := event.(type) {
		case Answer:
			if e.Message != nil {
				text.WriteString(e.Message.Content)
				calls = append(calls, e.Message.ToolCalls...)
			} else {
				text.WriteString(*e.Response)
			}
			last, logprobs = e, append(logprobs, e.Logprobs...)
		case Failure:
			failure = e.Error
		}
	}
	if failure != "" {
		writeError(w, http.StatusInternalServerError, failure)
		return
	}
	last.Message, last.Response = wrap(text.String())
	if last.Message != nil {
		last.Message.ToolCalls = calls
	}
	last.Logprobs = logprobs
	writeJSON(w, http.StatusOK, last)
}

func refuseCloud(w http.ResponseWriter) {
	if envBool("OLLAMA_NO_CLOUD") {
		writeError(w, http.StatusForbidden, cloudDisabled)
		return
	}
	writeError(w, http.StatusBadGateway, "error connecting to ollama.com")
}

func writeModelError(w http.ResponseWriter, asked string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", asked))
		return
	}
	writeError(w, http.StatusInternalServerError, err.Error())
}

func scheduleError(asked string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return statusError{499, "request canceled"}
	case errors.Is(err, errQueueFull):
		return statusError{http.StatusServiceUnavailable, err.Error()}
	case errors.Is(err, os.ErrNotExist):
		return statusError{http.StatusNotFound, fmt.Sprintf("model %q not found, try pulling it first", asked)}
	}
	return err
}
