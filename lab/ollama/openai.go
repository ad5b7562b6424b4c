package main

// The OpenAI endpoints, each a translation around the native one, as in the real server: what a native
// stream does not say, this one cannot say either. A native error line inside a stream becomes a chunk
// with nothing in it, and no [DONE] follows.

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"strings"
	"time"
)

type v1Request struct {
	Model            string          `json:"model"`
	Messages         []v1Message     `json:"messages"`
	Prompt           any             `json:"prompt"`
	Suffix           string          `json:"suffix"`
	Stream           bool            `json:"stream"`
	StreamOptions    *streamOptions  `json:"stream_options"`
	MaxTokens        *int            `json:"max_tokens"`
	Temperature      *float64        `json:"temperature"`
	TopP             *float64        `json:"top_p"`
	Seed             *int            `json:"seed"`
	Stop             any             `json:"stop"`
	FrequencyPenalty *float64        `json:"frequency_penalty"`
	PresencePenalty  *float64        `json:"presence_penalty"`
	ResponseFormat   *responseFormat `json:"response_format"`
	Tools            []any           `json:"tools"`
	ReasoningEffort  string          `json:"reasoning_effort"`
	Reasoning        *reasoning      `json:"reasoning"`
	Input            any             `json:"input"`
	Dimensions       int             `json:"dimensions"`
	EncodingFormat   string          `json:"encoding_format"`
}

type reasoning struct {
	Effort string `json:"effort"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema *struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"json_schema"`
}

type v1Message struct {
	Role      string           `json:"role"`
	Content   any              `json:"content"`
	ToolCalls []map[string]any `json:"tool_calls"`
	Name      string           `json:"name"`
}

// v1Error is the OpenAI form of an error.
func v1Error(w http.ResponseWriter, status int, message string) {
	writeV1(w, status, map[string]any{"error": map[string]any{"message": message, "type": errorKind(status), "param": nil, "code": nil}})
}

func errorKind(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "invalid_request_error"
	case http.StatusNotFound:
		return "not_found_error"
	}
	return "api_error"
}

// translator stands between a native handler and the client.
type translator struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
	line   func(data []byte) // set while streaming
}

func (t *translator) WriteHeader(status int) { t.status = status }

func (t *translator) Write(data []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	if t.line != nil && t.status == http.StatusOK {
		for _, line := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
			t.line(line)
		}
	} else {
		t.body.Write(data)
	}
	return len(data), nil
}

func (t *translator) Flush() { t.ResponseWriter.(http.Flusher).Flush() }

// native runs a native handler on a new body; an error of it has been answered when ok is false.
func native(w http.ResponseWriter, r *http.Request, h http.HandlerFunc, body any, line func([]byte)) (answer []byte, ok bool) {
	data, err := json.Marshal(body)
	if err != nil {
		fail(w, r, http.StatusInternalServerError, err.Error())
		return nil, false
	}
	inner := r.Clone(r.Context())
	inner.Body = io.NopCloser(bytes.NewReader(data))
	t := &translator{ResponseWriter: w, line: line}
	h(t, inner)
	if t.status > http.StatusOK {
		var failure struct{ Error string }
		_ = json.Unmarshal(t.body.Bytes(), &failure)
		fail(w, r, t.status, failure.Error)
		return nil, false
	}
	return t.body.Bytes(), true
}

func (q *v1Request) read(w http.ResponseWriter, r *http.Request) bool {
	if err := json.NewDecoder(r.Body).Decode(q); err != nil {
		v1Error(w, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

func (q *v1Request) options() map[string]any {
	o := map[string]any{"temperature": 1.0, "top_p": 1.0}
	switch stop := q.Stop.(type) {
	case string:
		o["stop"] = []string{stop}
	case []any:
		o["stop"] = stop
	}
	if q.MaxTokens != nil {
		o["num_predict"] = *q.MaxTokens
	}
	if q.Seed != nil {
		o["seed"] = *q.Seed
	}
	for key, value := range map[string]*float64{"temperature": q.Temperature, "top_p": q.TopP,
		"frequency_penalty": q.FrequencyPenalty, "presence_penalty": q.PresencePenalty} {
		if value != nil {
			o[key] = *value
		}
	}
	return o
}

// think: none is off, the levels are passed on, anything else is refused.
func (r *reasoning) think(effort string) (any, error) {
	if r != nil {
		effort = r.Effort
	}
	switch effort {
	case "":
		return nil, nil
	case "none":
		return false, nil
	case "low", "medium", "high", "max":
		return effort, nil
	}
	return nil, fmt.Errorf("invalid reasoning value: '%s' (must be \"high\", \"medium\", \"low\", \"max\", or \"none\")", effort)
}

func (q *v1Request) format() json.RawMessage {
	if q.ResponseFormat == nil {
		return nil
	}
	switch strings.ToLower(strings.TrimSpace(q.ResponseFormat.Type)) {
	case "json_object":
		return json.RawMessage(`"json"`)
	case "json_schema":
		if q.ResponseFormat.JSONSchema != nil {
			return q.ResponseFormat.JSONSchema.Schema
		}
	}
	return nil
}

// messages: each text part of a list becomes a message of its own.
func (q *v1Request) messages() (out []Message, err error) {
	for _, m := range q.Messages {
		switch content := m.Content.(type) {
		case string:
			out = append(out, Message{Role: m.Role, Content: content, ToolName: m.Name})
		case []any:
			for _, item := range content {
				part, _ := item.(map[string]any)
				if part["type"] == "image_url" {
					image, err := imagePart(part["image_url"])
					if err != nil {
						return nil, err
					}
					out = append(out, Message{Role: m.Role, Images: [][]byte{image}})
					continue
				}
				text, ok := part["text"].(string)
				if part["type"] != "text" || !ok {
					return nil, errors.New("invalid message format")
				}
				out = append(out, Message{Role: m.Role, Content: text})
			}
		default:
			if m.ToolCalls == nil {
				return nil, fmt.Errorf("invalid message content type: %T", content)
			}
			out = append(out, Message{Role: m.Role})
		}
	}
	return out, nil
}

// imagePart: an image comes within the request, never by address.
func imagePart(value any) ([]byte, error) {
	if object, ok := value.(map[string]any); ok {
		value = object["url"]
	}
	address, _ := value.(string)
	if head, data, ok := strings.Cut(address, ";base64,"); ok && strings.HasPrefix(head, "data:image/") {
		return base64.StdEncoding.DecodeString(data)
	}
	return nil, errors.New("invalid image input")
}

// v1Form is how one of the two completion endpoints writes an answer.
type v1Form struct {
	id, object, chunk string
	whole             func(text string) map[string]any
	delta             func(text string, last bool) map[string]any
}

func (s *Server) v1Chat(w http.ResponseWriter, r *http.Request) {
	var q v1Request
	if !q.read(w, r) {
		return
	}
	if len(q.Messages) == 0 {
		v1Error(w, http.StatusBadRequest, "[] is too short - 'messages'")
		return
	}
	messages, err := q.messages()
	if err != nil {
		v1Error(w, http.StatusBadRequest, err.Error())
		return
	}
	think, err := q.Reasoning.think(q.ReasoningEffort)
	if err != nil {
		v1Error(w, http.StatusBadRequest, err.Error())
		return
	}
	body := map[string]any{"model": q.Model, "messages": messages, "options": q.options(), "stream": q.Stream, "tools": q.Tools}
	if think != nil {
		body["think"] = think
	}
	message := func(text string) map[string]any { return map[string]any{"role": "assistant", "content": text} }
	s.v1Answer(w, r, &q, s.chat, body, v1Form{"chatcmpl", "chat.completion", "chat.completion.chunk",
		func(text string) map[string]any { return map[string]any{"message": message(text)} },
		func(text string, last bool) map[string]any {
			if last && text == "" {
				return map[string]any{"delta": map[string]any{}}
			}
			return map[string]any{"delta": message(text)}
		}})
}

func (s *Server) v1Completions(w http.ResponseWriter, r *http.Request) {
	var q v1Request
	if !q.read(w, r) {
		return
	}
	text := func(text string) map[string]any { return map[string]any{"text": text} }
	body := map[string]any{"model": q.Model, "prompt": q.Prompt, "suffix": q.Suffix, "options": q.options(), "stream": q.Stream}
	s.v1Answer(w, r, &q, s.generate, body, v1Form{"cmpl", "text_completion", "text_completion", text,
		func(t string, _ bool) map[string]any { return text(t) }})
}

func (a Answer) text() string {
	switch {
	case a.Message != nil:
		return a.Message.Content
	case a.Response != nil:
		return *a.Response
	}
	return ""
}

func (a Answer) usage() map[string]int {
	return map[string]int{"prompt_tokens": a.PromptEvalCount, "completion_tokens": a.EvalCount,
		"total_tokens": a.PromptEvalCount + a.EvalCount}
}

func (s *Server) v1Answer(w http.ResponseWriter, r *http.Request, q *v1Request, h http.HandlerFunc, body map[string]any, form v1Form) {
	if format := q.format(); format != nil {
		body["format"] = format
	}
	id := fmt.Sprintf("%s-%d", form.id, rand.Intn(999))
	object := func(kind, model string, choices ...map[string]any) map[string]any {
		return map[string]any{"id": id, "object": kind, "created": time.Now().Unix(), "model": model,
			"system_fingerprint": "fp_ollama", "choices": append([]map[string]any{}, choices...)}
	}
	choice := func(content map[string]any, reason string) map[string]any {
		content["index"], content["finish_reason"] = 0, nil
		if reason != "" {
			content["finish_reason"] = reason
		}
		return content
	}
	event := func(value any) {
		data, _ := json.Marshal(value)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\n", data)
	}
	called := false
	calling := func(a Answer, content map[string]any, where string) string {
		for _, call := range a.calls() {
			message := content[where].(map[string]any)
			made, _ := message["tool_calls"].([]any)
			message["tool_calls"] = append(made, call.v1())
			called = true
		}
		if called && a.Done {
			return "tool_calls"
		}
		return a.DoneReason
	}
	var line func([]byte)
	if q.Stream {
		line = func(data []byte) {
			var a Answer // an error line leaves it empty
			_ = json.Unmarshal(data, &a)
			delta := form.delta(a.text(), a.Done)
			reason := calling(a, delta, "delta")
			event(object(form.chunk, a.Model, choice(delta, reason)))
			if !a.Done {
				return
			}
			if q.StreamOptions != nil && q.StreamOptions.IncludeUsage {
				last := object(form.chunk, a.Model)
				last["usage"] = a.usage()
				event(last)
			}
			fmt.Fprint(w, "data: [DONE]\n\n")
		}
	}
	data, ok := native(w, r, h, body, line)
	if !ok || q.Stream {
		return
	}
	var a Answer
	if err := json.Unmarshal(data, &a); err != nil {
		v1Error(w, http.StatusInternalServerError, err.Error())
		return
	}
	whole := form.whole(a.text())
	reason := calling(a, whole, "message")
	answer := object(form.object, a.Model, choice(whole, reason))
	answer["usage"] = a.usage()
	writeV1(w, http.StatusOK, answer)
}

func (s *Server) v1Embeddings(w http.ResponseWriter, r *http.Request) {
	var q v1Request
	if !q.read(w, r) {
		return
	}
	if q.Input == nil || q.Input == "" {
		v1Error(w, http.StatusBadRequest, "invalid input")
		return
	}
	data, ok := native(w, r, s.embed, map[string]any{"model": q.Model, "input": q.Input, "dimensions": q.Dimensions}, nil)
	if !ok {
		return
	}
	var answer struct {
		Embeddings [][]float32
		Tokens     int `json:"prompt_eval_count"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		v1Error(w, http.StatusInternalServerError, err.Error())
		return
	}
	list := []map[string]any{}
	for i, vector := range answer.Embeddings {
		var value any = vector
		if strings.EqualFold(q.EncodingFormat, "base64") {
			var b bytes.Buffer
			_ = binary.Write(&b, binary.LittleEndian, vector)
			value = base64.StdEncoding.EncodeToString(b.Bytes())
		}
		list = append(list, map[string]any{"object": "embedding", "embedding": value, "index": i})
	}
	writeV1(w, http.StatusOK, map[string]any{"object": "list", "data": list, "model": q.Model,
		"usage": map[string]int{"prompt_tokens": answer.Tokens, "total_tokens": answer.Tokens}})
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
		v1Error(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", parseName(asked)))
		return
	}
	writeV1(w, http.StatusOK, v1Entry(asked, m.Manifest.modified))
}
