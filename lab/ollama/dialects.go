package main

// What the dialects that are not Ollama's share: named events, and the parts of a turn.

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// eventStream writes events, named or not; OpenAI numbers its named ones.
type eventStream struct {
	w        http.ResponseWriter
	numbered bool
	number   int
}

func (s *eventStream) send(name string, fields map[string]any) {
	s.w.Header().Set("Content-Type", "text/event-stream")
	if name != "" {
		fields["type"] = name
		fmt.Fprintf(s.w, "event: %s\n", name)
	}
	if s.numbered {
		fields["sequence_number"] = s.number
	}
	s.number++
	data, _ := json.Marshal(fields)
	fmt.Fprintf(s.w, "data: %s\n\n", data)
	s.w.(http.Flusher).Flush()
}

// end: a stream that has begun ends without a word on its error.
func (s *eventStream) end(err error) error {
	if s.number > 0 {
		return nil
	}
	return err
}

// turnOf joins the parts of a turn's content, in the words of any of the three.
func turnOf(role string, content any) (out Message, err error) {
	out.Role = role
	if role == "developer" {
		out.Role = "system"
	}
	if text, ok := content.(string); ok {
		out.Content = text
		return out, nil
	}
	parts, ok := content.([]any)
	if !ok || role == "" {
		return out, refuse(http.StatusBadRequest, "invalid message content")
	}
	for _, item := range parts {
		part, _ := item.(map[string]any)
		switch part["type"] {
		case "text", "input_text", "output_text":
			text, _ := part["text"].(string)
			out.Content += text
		case "tool_result":
			result, err := turnOf("tool", part["content"])
			if err != nil {
				return out, err
			}
			out.Role, out.Content = "tool", out.Content+result.Content
		case "image_url", "input_image":
			err = out.see(part["image_url"])
		case "image":
			source, _ := part["source"].(map[string]any)
			err = out.see(fmt.Sprintf("data:%v;%v,%v", source["media_type"], source["type"], source["data"]))
		case "tool_use", "thinking", "redacted_thinking":
		default:
			err = fmt.Errorf("invalid content type: %v", part["type"])
		}
		if err != nil {
			return out, refuse(http.StatusBadRequest, "%v", err)
		}
	}
	return out, nil
}

// see takes an image, which comes within the request, never by address.
func (m *Message) see(value any) error {
	if object, ok := value.(map[string]any); ok {
		value = object["url"]
	}
	address, _ := value.(string)
	head, data, ok := strings.Cut(address, ";base64,")
	if !ok || !strings.HasPrefix(head, "data:image/") {
		return fmt.Errorf("invalid image input")
	}
	image, err := base64.StdEncoding.DecodeString(data)
	m.Images = append(m.Images, image)
	return err
}
