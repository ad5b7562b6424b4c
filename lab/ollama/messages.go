package main

// POST /v1/messages, Anthropic's way of a chat. There is no count_tokens: 404, as in the real server.

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
)

type messagesRequest struct {
	Model       string      `json:"model"`
	MaxTokens   int         `json:"max_tokens"`
	System      any         `json:"system"`
	Stream      bool        `json:"stream"`
	Temperature *float64    `json:"temperature"`
	TopP        *float64    `json:"top_p"`
	TopK        *int        `json:"top_k"`
	Stop        []string    `json:"stop_sequences"`
	Tools       []any       `json:"tools"`
	Messages    []v1Message `json:"messages"`
	Thinking    *struct {
		Type string `json:"type"`
	} `json:"thinking"`
}

// request is the native one, or why there is none.
func (q *messagesRequest) request() (*inferRequest, error) {
	switch {
	case q.Model == "":
		return nil, refuse(http.StatusBadRequest, "model is required")
	case q.MaxTokens <= 0:
		return nil, refuse(http.StatusBadRequest, "max_tokens is required and must be positive")
	case len(q.Messages) == 0:
		return nil, refuse(http.StatusBadRequest, "messages is required")
	}
	req := &inferRequest{chat: true, Model: q.Model, Tools: nativeTools(q.Tools), Options: map[string]any{
		"num_predict": q.MaxTokens, "temperature": q.Temperature, "top_p": q.TopP, "top_k": q.TopK}}
	if len(q.Stop) > 0 {
		req.Options["stop"] = q.Stop
	}
	if q.Thinking != nil {
		req.Think = Think{set: true, on: q.Thinking.Type != "disabled"}
	}
	turns := q.Messages
	if q.System != nil {
		turns = append([]v1Message{{Role: "system", Content: q.System}}, turns...)
	}
	for _, m := range turns {
		turn, err := turnOf(m.Role, m.Content)
		if err != nil {
			return nil, err
		}
		req.Messages = append(req.Messages, turn)
	}
	return req, nil
}

func (s *Server) v1Messages(w http.ResponseWriter, r *http.Request, q *messagesRequest) error {
	req, err := q.request()
	if err != nil {
		return err
	}
	message := map[string]any{"id": fmt.Sprintf("msg_%024d", rand.Int63()), "type": "message", "role": "assistant",
		"model": q.Model, "content": []any{}, "stop_reason": nil, "stop_sequence": nil, "usage": Answer{}.messageUsage()}
	if q.Stream {
		events := &eventStream{w: w}
		return events.end(s.infer(r.Context(), req, messageEvents(events, message)))
	}
	whole, err := s.whole(r.Context(), req)
	if err == nil {
		content := []any{}
		for _, call := range whole.calls() {
			content = append(content, call.toolUse(json.RawMessage(call.arguments)))
		}
		message["stop_reason"], message["usage"] = whole.stopReason(len(content) > 0), whole.messageUsage()
		if len(content) == 0 {
			content = append(content, map[string]any{"type": "text", "text": whole.text})
		}
		message["content"] = content
		writeV1(w, http.StatusOK, message)
	}
	return err
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

func messageEvents(events *eventStream, message map[string]any) func(Answer) {
	var calls []toolCall
	return func(a Answer) {
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
		if a.text != "" {
			events.send("content_block_delta", map[string]any{"index": 0, "delta": map[string]any{"type": "text_delta", "text": a.text}})
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
