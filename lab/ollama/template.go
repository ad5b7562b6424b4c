package main

// Prompts from a model's Go template: the same values and functions as in the real one.

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// Message is one turn of a chat.
type Message struct {
	Role      string           `json:"role"`
	Content   string           `json:"content"`
	Thinking  string           `json:"thinking,omitempty"`
	Images    [][]byte         `json:"images,omitempty"`
	ToolCalls []map[string]any `json:"tool_calls,omitempty"`
	ToolName  string           `json:"tool_name,omitempty"`
}

// Template is a parsed template.
type Template struct {
	tree   *template.Template
	source string
}

var templateFuncs = template.FuncMap{
	"json": func(v any) string {
		data, _ := json.Marshal(v)
		return string(data)
	},
	"currentDate":   func(...string) string { return time.Now().Format("2006-01-02") },
	"yesterdayDate": func(...string) string { return time.Now().AddDate(0, 0, -1).Format("2006-01-02") },
}

func parseTemplate(source string) (*Template, error) {
	tree, err := template.New("").Option("missingkey=zero").Funcs(templateFuncs).Parse(source)
	return &Template{tree, source}, err
}

// mentions says whether an action uses a field of this name.
func (t *Template) mentions(field string) bool {
	return regexp.MustCompile(`(?i)\{\{[^}]*\.` + field + `\b`).MatchString(t.source)
}

// prompt renders a conversation. A template without .Messages is rendered once for each exchange.
func (t *Template) prompt(messages []Message, tools []any, think Think) (string, error) {
	var system []string
	for _, m := range messages {
		if m.Role == "system" {
			system = append(system, m.Content)
		}
	}
	values := map[string]any{"System": strings.Join(system, "\n\n"), "Messages": messages, "Tools": tools,
		"Think": think.on, "ThinkLevel": think.level, "IsThinkSet": think.set, "Response": "", "Prompt": "", "Suffix": ""}
	var b bytes.Buffer
	var err error
	if t.mentions("messages") {
		err = t.tree.Execute(&b, values)
		return b.String(), err
	}
	exchange := func(system, prompt, response string) {
		values["System"], values["Prompt"], values["Response"] = system, prompt, response
		if err == nil {
			err = t.tree.Execute(&b, values)
		}
		if !t.mentions("response") {
			b.WriteString(response)
		}
	}
	now, prompt := "", ""
	for _, m := range messages {
		switch m.Role {
		case "system":
			now = m.Content
		case "user":
			if prompt != "" {
				exchange(now, prompt, "")
				now = ""
			}
			prompt = m.Content
		case "assistant":
			exchange(now, prompt, m.Content)
			now, prompt = "", ""
		}
	}
	exchange(now, prompt, "")
	return b.String(), err
}
