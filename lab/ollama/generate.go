package main

// POST /api/generate and /api/chat, and what the other dialects make of them.

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

	chat bool // of /api/chat
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

	text string
}

// answer is a line that says this.
func (req *inferRequest) answer(text string) Answer {
	a := Answer{Model: first(req.Model, req.Name), CreatedAt: time.Now().UTC(), text: text}
	if req.chat {
		a.Message = &Message{Role: "assistant", Content: text}
	} else {
		a.Response = &text
	}
	return a
}

// empty: nothing is asked but to load the model, or to unload it.
func (req *inferRequest) empty() bool {
	return req.chat && len(req.Messages) == 0 || !req.chat && req.Prompt == ""
}

// native handles /api/chat, or /api/generate.
func (s *Server) native(chat bool) func(http.ResponseWriter, *http.Request, *inferRequest) error {
	return func(w http.ResponseWriter, r *http.Request, req *inferRequest) error {
		req.chat = chat
		if chat { // each has fields that the other does not know
			req.Raw = false
		} else {
			req.Tools, req.Messages = nil, nil
		}
		if req.Raw && (req.Template != "" || req.System != "") {
			return refuse(http.StatusBadRequest, "raw mode does not support template, system, or context")
		}
		if !req.empty() && (req.Stream == nil || *req.Stream) {
			stream := &lines{w: w}
			return stream.end(s.infer(r.Context(), req, func(a Answer) { stream.send(a) }))
		}
		whole, err := s.whole(r.Context(), req)
		if err == nil {
			writeJSON(w, http.StatusOK, whole)
		}
		return err
	}
}

// whole is the last line of an answer, with all its text.
func (s *Server) whole(ctx context.Context, req *inferRequest) (last Answer, err error) {
	var text strings.Builder
	var logprobs []Logprob
	var calls []map[string]any
	err = s.infer(ctx, req, func(a Answer) {
		text.WriteString(a.text)
		if a.Message != nil {
			calls = append(calls, a.Message.ToolCalls...)
		}
		last, logprobs = a, append(logprobs, a.Logprobs...)
	})
	all := req.answer(text.String())
	if all.Message != nil {
		all.Message.ToolCalls = calls
	}
	last.Message, last.Response, last.text, last.Logprobs = all.Message, all.Response, all.text, logprobs
	return last, err
}

// infer is what every dialect's chat and completion share: load (or unload), render, and a line for each
// piece of the answer.
func (s *Server) infer(ctx context.Context, req *inferRequest, each func(Answer)) error {
	start := time.Now()
	asked := first(req.Model, req.Name)
	if isCloud(asked) {
		return cloudError()
	}
	if asked == "" && req.chat {
		return refuse(http.StatusBadRequest, "model is required")
	}
	m, err := loadModel(asked)
	if err != nil {
		return modelError(asked, err)
	}
	last := req.answer("")
	last.Done = true
	if req.empty() && req.KeepAlive.zero() {
		s.sched.expire(m)
		last.DoneReason = "unload"
		each(last)
		return nil
	}
	if err := m.check(asked, req); err != nil {
		return err
	}
	options, err := optionsFor(m, req.Options)
	if err != nil {
		return err
	}
	options.noShift = req.Shift != nil && !*req.Shift
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loaded, err := s.sched.acquire(ctx, m, options, req.KeepAlive.value)
	if err != nil {
		return scheduleError(asked, err)
	}
	defer s.sched.release(loaded)
	ready := time.Now()
	if req.empty() {
		last.DoneReason = "load"
		each(last)
		return nil
	}
	prompt, err := req.render(m)
	if err != nil {
		return err
	}
	if t := req.called(); t != nil && req.chat {
		return internal(loaded.call(ctx, t, prompt, req, options, func(call map[string]any, c Chunk) error {
			line := req.answer("")
			line.Message.ToolCalls = []map[string]any{call}
			each(line)
			last := req.answer("")
			last.finish(c, start, ready)
			each(last)
			return nil
		}))
	}
	said := prompt
	return internal(loaded.complete(ctx, prompt, req, options, func(c Chunk) (err error) {
		line := req.answer(c.Content)
		line.Logprobs = c.Logprobs
		said += c.Content
		if c.Stop {
			line.finish(c, start, ready)
			if !req.chat && !req.Raw {
				line.Context, err = loaded.runner.tokens(ctx, said)
			}
		}
		if err == nil {
			each(line)
		}
		return err
	}))
}

// internal is an error of the child, whatever its status was there.
func internal(err error) error {
	if err == nil {
		return nil
	}
	return refuse(http.StatusInternalServerError, "%v", err)
}

// render is the prompt that the model gets.
func (req *inferRequest) render(m *Model) (_ string, err error) {
	if req.Raw {
		return req.Prompt, nil
	}
	t, turns, system := m.Template, req.Messages, m.System
	if !req.chat {
		turns, system = []Message{{Role: "user", Content: req.Prompt}}, first(req.System, m.System)
		if req.Template != "" {
			if t, err = parseTemplate(req.Template); err != nil {
				return "", err
			}
		}
	}
	if turns[0].Role != "system" && system != "" {
		turns = append([]Message{{Role: "system", Content: system}}, turns...)
	}
	return t.prompt(turns, req.Tools, req.Think)
}

// complete cuts a prompt that is longer than the context, unless the request forbids it.
func (l *loadedModel) complete(ctx context.Context, prompt string, req *inferRequest, o Options, each func(Chunk) error) (err error) {
	var fitting any = prompt
	if req.Truncate == nil || *req.Truncate {
		if fitting, err = l.runner.fit(ctx, prompt, o.NumKeep, l.options.NumCtx); err != nil {
			return err
		}
	}
	// A model that thinks is let think first, and one that never ends it is never held to a grammar.
	format := req.Format
	if l.model.can("thinking") && (!req.Think.set || req.Think.on) {
		format = nil
	}
	body := completionBody(fitting, format, o)
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

func cloudError() error {
	if envBool("OLLAMA_NO_CLOUD") {
		return refuse(http.StatusForbidden, "ollama cloud is disabled: remote model is unavailable")
	}
	return refuse(http.StatusBadGateway, "error connecting to ollama.com")
}

func modelError(asked string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "model '%s' not found", asked)
	}
	return err
}

func scheduleError(asked string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return refuse(499, "request canceled")
	case errors.Is(err, errQueueFull):
		return refuse(http.StatusServiceUnavailable, "%v", err)
	case errors.Is(err, os.ErrNotExist):
		return refuse(http.StatusNotFound, "model %q not found, try pulling it first", asked)
	}
	return err
}
