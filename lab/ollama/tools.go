package main

// Calls of tools. The lab's model has never learnt when to make one, so that is told to it: a tool is
// called when the last message is a user's and has its name. What it is called with is the model's own,
// held to the tool's schema, and may be as wrong as any model's.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"strings"
)

const callTokens = 256

type tool struct {
	Type     string       `json:"type"`
	Function toolFunction `json:"function"`
}

type toolFunction struct {
	Name       string         `json:"name"`
	Parameters map[string]any `json:"parameters"`
}

// nativeTools: the newer dialects write what a tool is called beside its type, and Anthropic's its
// schema by another name.
func nativeTools(tools []any) []any {
	out := []any{}
	for _, item := range tools {
		flat, _ := item.(map[string]any)
		if _, nested := flat["function"]; nested || flat["name"] == nil {
			out = append(out, item)
			continue
		}
		parameters := flat["parameters"]
		if parameters == nil {
			parameters = flat["input_schema"]
		}
		out = append(out, map[string]any{"type": "function", "function": map[string]any{
			"name": flat["name"], "description": flat["description"], "parameters": parameters}})
	}
	return out
}

// called is the tool to call, or nil.
func (req *inferRequest) called() *tool {
	if len(req.Messages) == 0 || len(req.Tools) == 0 {
		return nil
	}
	last := req.Messages[len(req.Messages)-1]
	if last.Role != "user" {
		return nil
	}
	words := map[string]bool{}
	for _, word := range strings.FieldsFunc(last.Content, func(r rune) bool { return strings.ContainsRune(" \n,.;:?!()'\"`", r) }) {
		words[word] = true
	}
	for _, item := range req.Tools {
		var t tool
		data, _ := json.Marshal(item)
		if json.Unmarshal(data, &t) == nil && words[t.Function.Name] {
			return &t
		}
	}
	return nil
}

// call asks for what the tool is called with; `each` gets it once, with the last chunk.
func (l *loadedModel) call(ctx context.Context, t *tool, prompt string, req *inferRequest, o Options,
	each func(map[string]any, Chunk) error) error {
	schema := map[string]any{"type": "object", "properties": map[string]any{}}
	for key, value := range t.Function.Parameters {
		schema[key] = value
	}
	schema["additionalProperties"] = false
	held := *req
	held.Format, _ = json.Marshal(schema)
	held.Think = Think{set: true}
	o.Stop, o.Temperature, o.NumPredict = nil, 0, callTokens
	var text strings.Builder
	return l.complete(ctx, prompt+" "+t.Function.Name+" with ", &held, o, func(c Chunk) error {
		text.WriteString(c.Content)
		if !c.Stop {
			return nil
		}
		var arguments map[string]any
		if json.Unmarshal([]byte(text.String()), &arguments) != nil {
			return errors.New("error parsing tool call: raw='" + text.String() + "'")
		}
		return each(map[string]any{"id": fmt.Sprintf("call_%08x", rand.Uint32()),
			"function": map[string]any{"index": 0, "name": t.Function.Name, "arguments": arguments}}, c)
	})
}

// calls are what a message asks for, with arguments as text, as the other dialects have them.
func (a Answer) calls() (out []toolCall) {
	if a.Message == nil {
		return nil
	}
	for _, c := range a.Message.ToolCalls {
		function := c["function"].(map[string]any)
		arguments, _ := json.Marshal(function["arguments"])
		out = append(out, toolCall{c["id"].(string), function["name"].(string), string(arguments)})
	}
	return out
}

// toolCall is a call in the words of the other dialects.
type toolCall struct{ id, name, arguments string }

func (c toolCall) v1() map[string]any {
	return map[string]any{"id": c.id, "index": 0, "type": "function",
		"function": map[string]any{"name": c.name, "arguments": c.arguments}}
}

// item is a call among the output of a response.
func (c toolCall) item(status string) map[string]any {
	item := map[string]any{"id": "fc_" + c.id, "type": "function_call", "status": status, "call_id": c.id,
		"name": c.name, "arguments": ""}
	if status == "completed" {
		item["arguments"] = c.arguments
	}
	return item
}

// stream is a call among the events of a response, in one piece.
func (c toolCall) stream(events *eventStream, at int) {
	more := func(fields map[string]any) map[string]any {
		fields["item_id"], fields["output_index"] = c.item("")["id"], at
		return fields
	}
	events.send("response.output_item.added", map[string]any{"output_index": at, "item": c.item("in_progress")})
	events.send("response.function_call_arguments.delta", more(map[string]any{"delta": c.arguments}))
	events.send("response.function_call_arguments.done", more(map[string]any{"name": c.name, "arguments": c.arguments}))
	events.send("response.output_item.done", map[string]any{"output_index": at, "item": c.item("completed")})
}

// toolUse is a call among the content of a message.
func (c toolCall) toolUse(input any) map[string]any {
	return map[string]any{"type": "tool_use", "id": c.id, "name": c.name, "input": input}
}
