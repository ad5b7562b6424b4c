package main

// Prompts from a model's Go template: the same values and functions as in the real one.

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
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

// Template is a parsed template and the fields it uses.
type Template struct {
	tree   *template.Template
	source string
	fields map[string]bool
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
	if err != nil {
		return nil, err
	}
	t := &Template{tree: tree, source: source, fields: map[string]bool{}}
	if tree.Tree != nil {
		t.collect(reflect.ValueOf(tree.Tree.Root))
	}
	return t, nil
}

// collect walks the parse tree for field names, whatever kind of node holds them.
func (t *Template) collect(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return
		}
		switch node := v.Interface().(type) {
		case *parse.FieldNode:
			t.note(node.Ident)
		case *parse.VariableNode:
			t.note(node.Ident[1:])
		case *parse.Tree:
			return
		}
		t.collect(v.Elem())
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if v.Type().Field(i).IsExported() {
				t.collect(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := 0; i < v.Len(); i++ {
			t.collect(v.Index(i))
		}
	}
}

func (t *Template) note(names []string) {
	for _, name := range names {
		t.fields[strings.ToLower(name)] = true
	}
}

func (t *Template) mentions(field string) bool { return t.fields[field] }

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
	if t.mentions("messages") {
		err := t.tree.Execute(&b, values)
		return b.String(), err
	}
	return t.exchanges(messages, values)
}

func (t *Template) exchanges(messages []Message, values map[string]any) (string, error) {
	var b bytes.Buffer
	system, prompt := "", ""
	flush := func(response string) error {
		values["System"], values["Prompt"], values["Response"] = system, prompt, response
		system, prompt = "", ""
		err := t.tree.Execute(&b, values)
		if err == nil && response != "" && !t.mentions("response") {
			b.WriteString(response)
		}
		return err
	}
	for _, m := range messages {
		var err error
		switch m.Role {
		case "system":
			system = m.Content
		case "user":
			if prompt != "" {
				err = flush("")
			}
			prompt = m.Content
		case "assistant":
			err = flush(m.Content)
		}
		if err != nil {
			return "", err
		}
	}
	err := flush("")
	return b.String(), err
}
