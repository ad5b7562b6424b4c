package main

// POST /v1/responses, OpenAI's newer way: one answer from a chat, nothing kept between requests.

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"strings"
	"time"
)

type responsesRequest struct {
	Model        string     `json:"model"`
	Input        any        `json:"input"`
	Instructions string     `json:"instructions"`
	Stream       bool       `json:"stream"`
	MaxTokens    *int       `json:"max_output_tokens"`
	Temperature  *float64   `json:"temperature"`
	TopP         *float64   `json:"top_p"`
	Tools        []any      `json:"tools"`
	Reasoning    *reasoning `json:"reasoning"`
	Text         struct {
		Format struct {
			Type   string          `json:"type"`
			Schema json.RawMessage `json:"schema"`
		} `json:"format"`
	} `json:"text"`
}

// turns: a text, or a list of turns; what a tool was asked and gave is a turn too.
func (q *responsesRequest) turns() (out []Message, err error) {
	if q.Instructions != "" {
		out = append(out, Message{Role: "system", Content: q.Instructions})
	}
	if text, ok := q.Input.(string); ok {
		return append(out, Message{Role: "user", Content: text}), nil
	}
	items, _ := q.Input.([]any)
	for _, item := range items {
		turn, _ := item.(map[string]any)
		role, _ := turn["role"].(string)
		content := turn["content"]
		switch turn["type"] {
		case "function_call", "reasoning":
			continue
		case "function_call_output":
			role, content = "tool", turn["output"]
		}
		message, err := turnOf(role, content)
		if err != nil {
			return nil, err
		}
		out = append(out, message)
	}
	if len(out) == 0 {
		return nil, refuse(http.StatusBadRequest, "input is required")
	}
	return out, nil
}

func (s *Server) v1Responses(w http.ResponseWriter, r *http.Request, q *responsesRequest) (err error) {
	req := &inferRequest{chat: true, Model: q.Model, Tools: nativeTools(q.Tools), Format: formatOf(q.Text.Format.Type, q.Text.Format.Schema),
		Options: map[string]any{"num_predict": q.MaxTokens, "temperature": q.Temperature, "top_p": q.TopP}}
	if req.Messages, err = q.turns(); err != nil {
		return err
	}
	if req.Think, err = q.Reasoning.think(""); err != nil {
		return err
	}
	number := rand.Intn(999999)
	out := &response{id: fmt.Sprintf("resp_%d", number), item: fmt.Sprintf("msg_%d", number), created: time.Now().Unix(), q: q}
	if q.Stream {
		events := &eventStream{w: w, numbered: true}
		return events.end(s.infer(r.Context(), req, out.streamed(events)))
	}
	whole, err := s.whole(r.Context(), req)
	if err == nil {
		writeV1(w, http.StatusOK, out.object(whole, out.output(whole.calls(), whole.text)...))
	}
	return err
}

type response struct {
	id, item string
	created  int64
	q        *responsesRequest
}

func (p *response) part(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

func (p *response) message(status string, parts ...any) map[string]any {
	return map[string]any{"id": p.item, "type": "message", "status": status, "role": "assistant", "content": append([]any{}, parts...)}
}

// output is what was said, or called.
func (p *response) output(calls []toolCall, text string) (out []any) {
	for _, call := range calls {
		out = append(out, call.item("completed"))
	}
	if out == nil {
		out = append(out, p.message("completed", p.part(text)))
	}
	return out
}

// object is the whole response: at its begin, with nothing said yet, or at its end.
func (p *response) object(a Answer, output ...any) map[string]any {
	object := map[string]any{"id": p.id, "object": "response", "created_at": p.created, "model": p.q.Model,
		"status": "in_progress", "output": []any{}, "error": nil, "incomplete_details": nil, "usage": nil,
		"instructions": p.q.Instructions, "temperature": p.q.Temperature, "top_p": p.q.TopP, "metadata": map[string]any{},
		"tools": append([]any{}, p.q.Tools...), "tool_choice": "auto", "parallel_tool_calls": true}
	if !a.Done {
		return object
	}
	object["status"] = "completed"
	if a.DoneReason == "length" {
		object["status"], object["incomplete_details"] = "incomplete", map[string]any{"reason": "max_output_tokens"}
	}
	object["output"] = output
	object["usage"] = map[string]any{"input_tokens": a.PromptEvalCount, "output_tokens": a.EvalCount,
		"total_tokens":          a.PromptEvalCount + a.EvalCount,
		"input_tokens_details":  map[string]int{"cached_tokens": 0},
		"output_tokens_details": map[string]int{"reasoning_tokens": 0}}
	return object
}

func (p *response) streamed(events *eventStream) func(Answer) {
	var text strings.Builder
	var calls []toolCall
	at := func(more map[string]any) map[string]any {
		more["item_id"], more["output_index"], more["content_index"] = p.item, 0, 0
		return more
	}
	return func(a Answer) {
		if events.number == 0 {
			for _, name := range []string{"response.created", "response.in_progress"} {
				events.send(name, map[string]any{"response": p.object(Answer{})})
			}
			calls = a.calls()
			for i, call := range calls {
				call.stream(events, i)
			}
			if calls != nil {
				return
			}
			events.send("response.output_item.added", map[string]any{"output_index": 0, "item": p.message("in_progress")})
			events.send("response.content_part.added", at(map[string]any{"part": p.part("")}))
		}
		if calls != nil {
			events.send("response.completed", map[string]any{"response": p.object(a, p.output(calls, "")...)})
			return
		}
		if a.text != "" {
			text.WriteString(a.text)
			events.send("response.output_text.delta", at(map[string]any{"delta": a.text, "logprobs": []any{}}))
		}
		if !a.Done {
			return
		}
		all := text.String()
		events.send("response.output_text.done", at(map[string]any{"text": all, "logprobs": []any{}}))
		events.send("response.content_part.done", at(map[string]any{"part": p.part(all)}))
		events.send("response.output_item.done", map[string]any{"output_index": 0, "item": p.message("completed", p.part(all))})
		end := p.object(a, p.output(nil, all)...)
		events.send("response."+end["status"].(string), map[string]any{"response": end})
	}
}
