package main

// POST /v1/responses, OpenAI's newer way: one answer from a chat, nothing kept between requests.

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"strings"
	"time"
)

type responsesRequest struct {
	Model        string         `json:"model"`
	Input        any            `json:"input"`
	Instructions string         `json:"instructions"`
	Stream       bool           `json:"stream"`
	MaxTokens    *int           `json:"max_output_tokens"`
	Temperature  *float64       `json:"temperature"`
	TopP         *float64       `json:"top_p"`
	Tools        []any          `json:"tools"`
	Reasoning    *reasoning     `json:"reasoning"`
	Text         *responsesText `json:"text"`
}

type responsesText struct {
	Format struct {
		Type   string          `json:"type"`
		Schema json.RawMessage `json:"schema"`
	} `json:"format"`
}

// messages: a text, or a list of turns; what a tool was asked and gave is a turn too.
func (q *responsesRequest) messages() ([]Message, error) {
	var out []Message
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
		return nil, errors.New("input is required")
	}
	return out, nil
}

// turnOf joins the parts of a turn's content, in the words of either newer dialect.
func turnOf(role string, content any) (Message, error) {
	out := Message{Role: role}
	if role == "developer" {
		out.Role = "system"
	}
	if text, ok := content.(string); ok {
		out.Content = text
		return out, nil
	}
	parts, ok := content.([]any)
	if !ok || role == "" {
		return out, errors.New("invalid message content")
	}
	for _, item := range parts {
		part, _ := item.(map[string]any)
		var image []byte
		var err error
		switch part["type"] {
		case "text", "input_text", "output_text":
			text, _ := part["text"].(string)
			out.Content += text
		case "tool_result":
			var result Message
			result, err = turnOf("tool", part["content"])
			out.Role, out.Content = "tool", out.Content+result.Content
		case "input_image":
			image, err = imagePart(part["image_url"])
		case "image":
			source, _ := part["source"].(map[string]any)
			image, err = imagePart(fmt.Sprintf("data:%v;%v,%v", source["media_type"], source["type"], source["data"]))
		case "tool_use", "thinking", "redacted_thinking":
		default:
			err = fmt.Errorf("invalid content type: %v", part["type"])
		}
		if err != nil {
			return out, err
		}
		if image != nil {
			out.Images = append(out.Images, image)
		}
	}
	return out, nil
}

// chatBody is the native request of both newer dialects; what is not given is left to the model.
func chatBody(model string, messages []Message, stream bool, options map[string]any, tools []any) map[string]any {
	for key, value := range options {
		if number, ok := value.(*float64); ok && number == nil {
			delete(options, key)
		} else if number, ok := value.(*int); ok && number == nil {
			delete(options, key)
		}
	}
	return map[string]any{"model": model, "messages": messages, "stream": stream, "options": options, "tools": nativeTools(tools)}
}

// eventStream writes named events, which OpenAI numbers too.
type eventStream struct {
	w        http.ResponseWriter
	numbered bool
	number   int
}

func (s *eventStream) send(name string, fields map[string]any) {
	fields["type"] = name
	if s.numbered {
		fields["sequence_number"] = s.number
	}
	s.number++
	data, _ := json.Marshal(fields)
	s.w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, data)
}

func (s *Server) v1Responses(w http.ResponseWriter, r *http.Request) {
	var q responsesRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		v1Error(w, http.StatusBadRequest, err.Error())
		return
	}
	messages, err := q.messages()
	if err != nil {
		v1Error(w, http.StatusBadRequest, err.Error())
		return
	}
	think, err := q.Reasoning.think("")
	if err != nil {
		v1Error(w, http.StatusBadRequest, err.Error())
		return
	}
	body := chatBody(q.Model, messages, q.Stream, map[string]any{"num_predict": q.MaxTokens,
		"temperature": q.Temperature, "top_p": q.TopP}, q.Tools)
	if think != nil {
		body["think"] = think
	}
	if q.Text != nil && q.Text.Format.Type == "json_schema" {
		body["format"] = q.Text.Format.Schema
	} else if q.Text != nil && q.Text.Format.Type == "json_object" {
		body["format"] = "json"
	}
	number := rand.Intn(999999)
	out := &response{id: fmt.Sprintf("resp_%d", number), item: fmt.Sprintf("msg_%d", number), created: time.Now().Unix(), q: &q}
	if q.Stream {
		native(w, r, s.chat, body, out.streamed(&eventStream{w: w, numbered: true}))
		return
	}
	data, ok := native(w, r, s.chat, body, nil)
	if !ok {
		return
	}
	var a Answer
	if err := json.Unmarshal(data, &a); err != nil {
		v1Error(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeV1(w, http.StatusOK, out.object(a, out.output(a.calls(), a.text())...))
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

// streamed turns native lines into events. An error line ends them, as it ends a chat's: with nothing.
func (p *response) streamed(events *eventStream) func([]byte) {
	var text strings.Builder
	var calls []toolCall
	at := func(more map[string]any) map[string]any {
		more["item_id"], more["output_index"], more["content_index"] = p.item, 0, 0
		return more
	}
	return func(data []byte) {
		var a Answer
		if json.Unmarshal(data, &a) != nil || a.Message == nil {
			return
		}
		if events.number == 0 {
			events.send("response.created", map[string]any{"response": p.object(Answer{})})
			events.send("response.in_progress", map[string]any{"response": p.object(Answer{})})
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
		if a.text() != "" {
			text.WriteString(a.text())
			events.send("response.output_text.delta", at(map[string]any{"delta": a.text(), "logprobs": []any{}}))
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
