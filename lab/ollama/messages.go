package main

// POST /v1/messages, Anthropic's way of a chat. There is no count_tokens: 404, as in the real server.

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
)

type messagesRequest struct {
	Model       string   `json:"model"`
	MaxTokens   int      `json:"max_tokens"`
	System      any      `json:"system"`
	Stream      bool     `json:"stream"`
	Temperature *float64 `json:"temperature"`
	TopP        *float64 `json:"top_p"`
	TopK        *int     `json:"top_k"`
	Stop        []string `json:"stop_sequences"`
	Tools       []any    `json:"tools"`
	Messages    []struct {
		Role    string `json:"role"`
		Content any    `json:"content"`
	} `json:"messages"`
	Thinking *struct {
		Type string `json:"type"`
	} `json:"thinking"`
}

// messagesError is Anthropic's form of an error.
func messagesError(w http.ResponseWriter, status int, message string) {
	writeV1(w, status, map[string]any{"type": "error", "error": map[string]any{"type": errorKind(status), "message": message}})
}

// body is the native request, or why there is none.
func (q *messagesRequest) body() (map[string]any, error) {
	switch {
	case q.Model == "":
		return nil, fmt.Errorf("model is required")
	case q.MaxTokens <= 0:
		return nil, fmt.Errorf("max_tokens is required and must be positive")
	case len(q.Messages) == 0:
		return nil, fmt.Errorf("messages is required")
	}
	var messages []Message
	if q.System != nil {
		system, err := turnOf("system", q.System)
		if err != nil {
			return nil, err
		}
		messages = append(messages, system)
	}
	for _, m := range q.Messages {
		turn, err := turnOf(m.Role, m.Content)
		if err != nil {
			return nil, err
		}
		messages = append(messages, turn)
	}
	options := map[string]any{"num_predict": q.MaxTokens, "temperature": q.Temperature, "top_p": q.TopP, "top_k": q.TopK}
	if len(q.Stop) > 0 {
		options["stop"] = q.Stop
	}
	body := chatBody(q.Model, messages, q.Stream, options, q.Tools)
	if q.Thinking != nil {
		body["think"] = q.Thinking.Type != "disabled"
	}
	return body, nil
}

func (s *Server) v1Messages(w http.ResponseWriter, r *http.Request) {
	var q messagesRequest
	err := json.NewDecoder(r.Body).Decode(&q)
	var body map[string]any
	if err == nil {
		body, err = q.body()
	}
	if err != nil {
		messagesError(w, http.StatusBadRequest, err.Error())
		return
	}
	message := map[string]any{"id": fmt.Sprintf("msg_%024d", rand.Int63()), "type": "message", "role": "assistant",
		"model": q.Model, "content": []any{}, "stop_reason": nil, "stop_sequence": nil,
		"usage": map[string]int{"input_tokens": 0, "output_tokens": 0}}
	if q.Stream {
		native(w, r, s.chat, body, messageEvents(&eventStream{w: w}, message))
		return
	}
	data, ok := native(w, r, s.chat, body, nil)
	if !ok {
		return
	}
	var a Answer
	if err := json.Unmarshal(data, &a); err != nil {
		messagesError(w, http.StatusInternalServerError, err.Error())
		return
	}
	content := []any{}
	for _, call := range a.calls() {
		content = append(content, call.toolUse(json.RawMessage(call.arguments)))
	}
	message["stop_reason"], message["usage"] = a.stopReason(len(content) > 0), a.messageUsage()
	if len(content) == 0 {
		content = append(content, map[string]any{"type": "text", "text": a.text()})
	}
	message["content"] = content
	writeV1(w, http.StatusOK, message)
}

func (a Answer) stopReason(calls bool) string {
	if calls {
		return "tool_use"
	}
	if a.DoneReason == "length" {
		return "max_tokens"
	}
	return "end_turn"
}

func (a Answer) messageUsage() map[string]int {
	return map[string]int{"input_tokens": a.PromptEvalCount, "output_tokens": a.EvalCount}
}

// messageEvents turns native lines into events; an error line ends them.
func messageEvents(events *eventStream, message map[string]any) func([]byte) {
	var calls []toolCall
	return func(data []byte) {
		var a Answer
		if json.Unmarshal(data, &a) != nil || a.Message == nil {
			return
		}
		if events.number == 0 {
			events.send("message_start", map[string]any{"message": message})
			calls = a.calls()
			for i, call := range calls {
				events.send("content_block_start", map[string]any{"index": i, "content_block": call.toolUse(map[string]any{})})
				events.send("content_block_delta", map[string]any{"index": i,
					"delta": map[string]any{"type": "input_json_delta", "partial_json": call.arguments}})
				events.send("content_block_stop", map[string]any{"index": i})
			}
			if calls != nil {
				return
			}
			events.send("content_block_start", map[string]any{"index": 0, "content_block": map[string]any{"type": "text", "text": ""}})
		}
		if a.text() != "" {
			events.send("content_block_delta", map[string]any{"index": 0, "delta": map[string]any{"type": "text_delta", "text": a.text()}})
		}
		if !a.Done {
			return
		}
		if calls == nil {
			events.send("content_block_stop", map[string]any{"index": 0})
		}
		events.send("message_delta", map[string]any{"usage": a.messageUsage(),
			"delta": map[string]any{"stop_reason": a.stopReason(calls != nil), "stop_sequence": nil}})
		events.send("message_stop", map[string]any{})
	}
}
