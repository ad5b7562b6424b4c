package main

// A stored model as the endpoints need it: weights, template, system prompt, options, capabilities.

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// Model is a manifest with its small layers read.
type Model struct {
	Name     Name
	Manifest *Manifest
	Config   Config
	Weights  string // path of the model blob
	Template *Template
	System   string
	Options  map[string]any
}

// loadModel gives os.ErrNotExist for a model without manifest.
func loadModel(asked string) (*Model, error) {
	name := parseName(asked)
	if asked == "" || !name.Valid() {
		return nil, os.ErrNotExist
	}
	name = existingName(name)
	manifest, err := readManifest(name)
	if err != nil {
		return nil, err
	}
	m := &Model{Name: name, Manifest: manifest, Config: manifest.config(), System: manifest.text("system")}
	if layer := manifest.layer("model"); layer != nil {
		m.Weights = blobPath(layer.Digest)
	}
	if text := manifest.text("params"); text != "" {
		if err := json.Unmarshal([]byte(text), &m.Options); err != nil {
			return nil, err
		}
	}
	m.Template, err = parseTemplate(first(manifest.text("template"), "{{ .Prompt }}"))
	return m, err
}

// hasTemplate: a Go template came with the model.
func (m *Model) hasTemplate() bool { return m.Manifest.layer("template") != nil }

// capabilities: from the weights' head and from what the template speaks of. Unreadable weights have none.
func (m *Model) capabilities() []string {
	caps := []string{}
	head, err := readGGUF(m.Weights)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errMagic):
	// Weights that say how their vectors are pooled make embeddings, and nothing else.
	case err == nil && head.pooled():
		caps = append(caps, "embedding")
	default:
		caps = append(caps, "completion")
	}
	if len(caps) == 0 {
		return caps
	}
	for _, pair := range [][2]string{{"tools", "tools"}, {"suffix", "insert"}, {"thinking", "thinking"}} {
		if m.Template.mentions(pair[0]) {
			caps = append(caps, pair[1])
		}
	}
	return caps
}

func (m *Model) can(capability string) bool {
	for _, c := range m.capabilities() {
		if c == capability {
			return true
		}
	}
	return false
}

// check says why the model cannot do what a request wants, in the words of that request's endpoint.
func (m *Model) check(asked string, req *inferRequest) error {
	if req.Think.on && !m.can("thinking") {
		return refuse(http.StatusBadRequest, "%q does not support thinking", asked)
	}
	if !m.can("completion") {
		return refuse(http.StatusBadRequest, "%q does not support %s", asked, map[bool]string{true: "chat", false: "generate"}[req.chat])
	}
	for _, wanted := range []struct {
		name string
		is   bool
	}{{"tools", len(req.Tools) > 0}, {"insert", req.Suffix != ""}} {
		if wanted.is && !m.can(wanted.name) {
			return refuse(http.StatusBadRequest, "%s does not support %s", m.Name.full(), wanted.name)
		}
	}
	images := len(req.Images)
	for _, message := range req.Messages {
		images += len(message.Images)
	}
	if images > 0 { // no model of the lab sees; the words are llama.cpp's
		return refuse(http.StatusBadRequest, "Multimodal data provided, but model does not support multimodal requests.")
	}
	return nil
}

// Think is the request's think: a boolean or a level.
type Think struct {
	set   bool
	on    bool
	level string
}

// UnmarshalJSON refuses any other string or type.
func (t *Think) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	t.set = true
	if json.Unmarshal(data, &t.on) == nil {
		return nil
	}
	if json.Unmarshal(data, &t.level) == nil {
		t.on = true
		switch t.level {
		case "low", "medium", "high", "max":
			return nil
		}
		return fmt.Errorf("invalid think value: %q (must be \"high\", \"medium\", \"low\", \"max\", true, or false)", t.level)
	}
	return errors.New("think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)")
}

// full is the name with everything written out.
func (n Name) full() string {
	return strings.Join([]string{n.Host, n.Namespace, n.Model}, "/") + ":" + n.Tag
}
