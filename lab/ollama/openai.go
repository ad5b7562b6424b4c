package main

// The OpenAI endpoints, each a translation around the native one, as in the real server: what a native
// stream does not say, this one cannot say either. An error inside a stream becomes a chunk with nothing
// in it, and no [DONE] follows.

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"time"
)

type v1Request struct {
	Model            string      `json:"model"`
	Messages         []v1Message `json:"messages"`
	Prompt           string      `json:"prompt"`
	Suffix           string      `json:"suffix"`
	Stream           bool        `json:"stream"`
	MaxTokens        *int        `json:"max_tokens"`
	Temperature      *float64    `json:"temperature"`
	TopP             *float64    `json:"top_p"`
	Seed             *int        `json:"seed"`
	Stop             any         `json:"stop"`
	FrequencyPenalty *float64    `json:"frequency_penalty"`
	PresencePenalty  *float64    `json:"presence_penalty"`
	Tools            []any       `json:"tools"`
	ReasoningEffort  string      `json:"reasoning_effort"`
	Reasoning        *reasoning  `json:"reasoning"`

	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ResponseFormat struct {
		Type       string `json:"type"`
		JSONSchema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

type v1Message struct {
	Role      string           `json:"role"`
	Content   any              `json:"content"`
	ToolCalls []map[string]any `json:"tool_calls"`
	Name      string           `json:"name"`
}

type reasoning struct {
	Effort string `json:"effort"`
}

// think: none is off, the levels are passed on, anything else is refused.
func (r *reasoning) think(effort string) (Think, error) {
	if r != nil {
		effort = r.Effort
	}
	switch effort {
	case "":
		return Think{}, nil
	case "none":
		return Think{set: true}, nil
	case "low", "medium", "high", "max":
		return Think{set: true, on: true, level: effort}, nil
	}
	return Think{}, refuse(http.StatusBadRequest,
		`invalid reasoning value: '%s' (must be "high", "medium", "low", "max", or "none")`, effort)
}

// formatOf is the native format for the type that either of OpenAI's ways calls it by.
func formatOf(kind string, schema json.RawMessage) json.RawMessage {
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "json_object":
		return json.RawMessage(`"json"`)
	case "json_schema":
		return schema
	}
	return nil
}

// turns: each part of a list becomes a message of its own.
func (q *v1Request) turns() (out []Message, err error) {
	for _, m := range q.Messages {
		switch content := m.Content.(type) {
		case string:
			out = append(out, Message{Role: m.Role, Content: content, ToolName: m.Name})
		case []any:
			for _, item := range content {
				part, _ := item.(map[string]any)
				if _, ok := part["text"].(string); part["type"] != "image_url" && (part["type"] != "text" || !ok) {
					return nil, refuse(http.StatusBadRequest, "invalid message format")
				}
				turn, err := turnOf(m.Role, []any{item})
				if err != nil {
					return nil, err
				}
				turn.Role = m.Role
				out = append(out, turn)
			}
		default:
			if m.ToolCalls == nil {
				return nil, refuse(http.StatusBadRequest, "invalid message content type: %T", content)
			}
			out = append(out, Message{Role: m.Role})
		}
	}
	return out, nil
}

// request is the native request of either completion.
func (q *v1Request) request() *inferRequest {
	options := map[string]any{"temperature": 1.0, "top_p": 1.0, "num_predict": q.MaxTokens, "seed": q.Seed, "stop": q.Stop,
		"frequency_penalty": q.FrequencyPenalty, "presence_penalty": q.PresencePenalty}
	if text, ok := q.Stop.(string); ok {
		options["stop"] = []string{text}
	}
	if q.Temperature != nil {
		options["temperature"] = q.Temperature
	}
	if q.TopP != nil {
		options["top_p"] = q.TopP
	}
	return &inferRequest{Model: q.Model, Options: options, Prompt: q.Prompt, Suffix: q.Suffix,
		Format: formatOf(q.ResponseFormat.Type, q.ResponseFormat.JSONSchema.Schema)}
}

func (s *Server) v1Chat(w http.ResponseWriter, r *http.Request, q *v1Request) (err error) {
	if len(q.Messages) == 0 {
		return refuse(http.StatusBadRequest, "[] is too short - 'messages'")
	}
	req := q.request()
	req.chat, req.Tools = true, q.Tools
	if req.Messages, err = q.turns(); err != nil {
		return err
	}
	if req.Think, err = q.Reasoning.think(q.ReasoningEffort); err != nil {
		return err
	}
	return s.v1Answer(w, r, q, req)
}

func (s *Server) v1Completions(w http.ResponseWriter, r *http.Request, q *v1Request) error {
	return s.v1Answer(w, r, q, q.request())
}

// v1Choice is what an answer says, all of it or (of a stream, in which a tool may have been called) the
// next piece.
func v1Choice(a Answer, chat, piece, called bool) map[string]any {
	choice := map[string]any{"index": 0, "finish_reason": nil}
	if a.Done && called {
		choice["finish_reason"] = "tool_calls"
	} else if a.DoneReason != "" {
		choice["finish_reason"] = a.DoneReason
	}
	message := map[string]any{"role": "assistant", "content": a.text}
	var calls []any
	for _, call := range a.calls() {
		calls = append(calls, call.v1())
	}
	if calls != nil {
		message["tool_calls"] = calls
	}
	switch {
	case !chat:
		choice["text"] = a.text
	case !piece:
		choice["message"] = message
	case a.Done && a.text == "":
		choice["delta"] = map[string]any{}
	default:
		choice["delta"] = message
	}
	return choice
}

func (a Answer) usage() map[string]int {
	return map[string]int{"prompt_tokens": a.PromptEvalCount, "completion_tokens": a.EvalCount,
		"total_tokens": a.PromptEvalCount + a.EvalCount}
}

func (s *Server) v1Answer(w http.ResponseWriter, r *http.Request, q *v1Request, req *inferRequest) error {
	id, kind := fmt.Sprintf("cmpl-%d", rand.Intn(999)), "text_completion"
	if req.chat {
		id, kind = "chat"+id, "chat.completion"
		if q.Stream {
			kind += ".chunk"
		}
	}
	object := func(a Answer, choices ...any) map[string]any {
		return map[string]any{"id": id, "object": kind, "created": time.Now().Unix(), "model": a.Model,
			"system_fingerprint": "fp_ollama", "choices": append([]any{}, choices...)}
	}
	if !q.Stream {
		whole, err := s.whole(r.Context(), req)
		if err == nil {
			answer := object(whole, v1Choice(whole, req.chat, false, len(whole.calls()) > 0))
			answer["usage"] = whole.usage()
			writeV1(w, http.StatusOK, answer)
		}
		return err
	}
	events, called := &eventStream{w: w}, false
	piece := func(a Answer) {
		called = called || len(a.calls()) > 0
		events.send("", object(a, v1Choice(a, req.chat, true, called)))
		if a.Done && q.StreamOptions.IncludeUsage {
			last := object(a)
			last["usage"] = a.usage()
			events.send("", last)
		}
		if a.Done {
			fmt.Fprint(w, "data: [DONE]\n\n")
		}
	}
	err := s.infer(r.Context(), req, piece)
	if err != nil && events.number > 0 {
		piece(Answer{})
	}
	return events.end(err)
}

type v1EmbedRequest struct {
	embedRequest
	EncodingFormat string `json:"encoding_format"`
}

func (s *Server) v1Embeddings(w http.ResponseWriter, r *http.Request, q *v1EmbedRequest) error {
	if q.Input == nil || q.Input == "" {
		return refuse(http.StatusBadRequest, "invalid input")
	}
	q.embedRequest = embedRequest{Model: q.Model, Input: q.Input, Dimensions: q.Dimensions}
	found, err := s.vectors(r, &q.embedRequest)
	if err != nil {
		return err
	}
	list := []map[string]any{}
	for i, vector := range found.Embeddings {
		var value any = vector
		if strings.EqualFold(q.EncodingFormat, "base64") {
			var b bytes.Buffer
			_ = binary.Write(&b, binary.LittleEndian, vector)
			value = base64.StdEncoding.EncodeToString(b.Bytes())
		}
		list = append(list, map[string]any{"object": "embedding", "embedding": value, "index": i})
	}
	writeV1(w, http.StatusOK, map[string]any{"object": "list", "data": list, "model": q.Model,
		"usage": map[string]int{"prompt_tokens": found.Tokens, "total_tokens": found.Tokens}})
	return nil
}

func v1Entry(id string, modified time.Time) map[string]any {
	return map[string]any{"id": id, "object": "model", "created": modified.Unix(), "owned_by": parseName(id).Namespace}
}

func (s *Server) v1Models(w http.ResponseWriter, r *http.Request) {
	var list []map[string]any // null when there is none, as in the real one
	for _, m := range listModels() {
		list = append(list, v1Entry(m.Name, m.ModifiedAt))
	}
	writeV1(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (s *Server) v1Model(w http.ResponseWriter, r *http.Request) {
	asked := strings.TrimPrefix(r.URL.Path, "/v1/models/")
	m, err := loadModel(asked)
	if err != nil {
		fail(w, r, modelError(parseName(asked).String(), os.ErrNotExist))
		return
	}
	writeV1(w, http.StatusOK, v1Entry(asked, m.Manifest.modified))
}
