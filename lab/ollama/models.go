package main

// The endpoints about stored and loaded models: tags, ps, show, copy, delete, blobs.

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Details are the same in tags, ps and show.
type Details struct {
	ParentModel       string   `json:"parent_model"`
	Format            string   `json:"format"`
	Family            string   `json:"family"`
	Families          []string `json:"families"`
	ParameterSize     string   `json:"parameter_size"`
	QuantizationLevel string   `json:"quantization_level"`
	ContextLength     int      `json:"context_length,omitempty"`
	EmbeddingLength   int      `json:"embedding_length,omitempty"`
}

// Entry is what tags and ps say alike; the digest is the hash of the manifest file.
type Entry struct {
	Name    string  `json:"name"`
	Model   string  `json:"model"`
	Size    int64   `json:"size"`
	Digest  string  `json:"digest"`
	Details Details `json:"details"`
}

// ModelEntry is one of /api/tags.
type ModelEntry struct {
	Entry
	ModifiedAt   time.Time `json:"modified_at"`
	Capabilities []string  `json:"capabilities"`
}

// RunningEntry is one of /api/ps.
type RunningEntry struct {
	Entry
	ExpiresAt     time.Time `json:"expires_at"`
	SizeVRAM      int64     `json:"size_vram"`
	ContextLength int       `json:"context_length"`
}

func (c Config) details() Details {
	return Details{Format: c.ModelFormat, Family: c.ModelFamily, Families: c.ModelFamilies,
		ParameterSize: c.ModelType, QuantizationLevel: c.FileType}
}

func listModels() []ModelEntry {
	models := []ModelEntry{}
	for name, m := range listManifests() {
		entry := ModelEntry{Entry{name.String(), name.String(), m.size(), m.digest, m.config().details()}, m.modified, []string{}}
		if model, err := loadModel(name.String()); err == nil {
			entry.Capabilities = model.capabilities()
			if head, err := readGGUF(model.Weights); err == nil {
				entry.Details.ContextLength = head.contextLimit()
				entry.Details.EmbeddingLength = int(head.number(head.arch() + ".embedding_length"))
			}
		}
		models = append(models, entry)
	}
	sort.Slice(models, func(i, j int) bool {
		if models[i].ModifiedAt.Equal(models[j].ModifiedAt) {
			return models[i].Name < models[j].Name
		}
		return models[i].ModifiedAt.After(models[j].ModifiedAt)
	})
	return models
}

func (s *Server) tags(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"models": listModels()})
}

func (s *Server) ps(w http.ResponseWriter, r *http.Request) {
	s.sched.mu.Lock()
	models := []RunningEntry{}
	for _, l := range s.sched.loaded {
		expires := l.expires
		if l.refs > 0 || expires.IsZero() {
			expires = time.Now().Add(l.keep)
		}
		entry := Entry{l.model.Name.String(), l.model.Name.String(), l.size, l.model.Manifest.digest, l.model.Config.details()}
		models = append(models, RunningEntry{entry, expires, l.onGPU, l.options.NumCtx})
	}
	s.sched.mu.Unlock()
	sort.Slice(models, func(i, j int) bool { return models[i].ExpiresAt.After(models[j].ExpiresAt) })
	writeJSON(w, http.StatusOK, map[string]any{"models": models})
}

type nameRequest struct {
	Model string `json:"model"`
	Name  string `json:"name"`
}

func (s *Server) show(w http.ResponseWriter, r *http.Request, req *nameRequest) error {
	asked := first(req.Model, req.Name)
	if isCloud(asked) {
		return cloudError()
	}
	if asked == "" {
		return refuse(http.StatusBadRequest, "model is required")
	}
	m, err := loadModel(asked)
	if err != nil {
		return modelError(parseName(asked).String(), err)
	}
	head, err := readGGUF(m.Weights)
	if err != nil {
		return modelError(m.Name.String(), err)
	}
	info := map[string]any{"general.parameter_count": head.Parameters}
	for key, value := range head.Keys {
		if !strings.HasPrefix(key, "tokenizer.chat_template") {
			info[key] = value
		}
	}
	details := m.Config.details()
	if layer := m.Manifest.layer("model"); layer != nil {
		details.ParentModel = layer.From
	}
	tensors := []map[string]any{}
	for _, t := range head.tensors {
		tensors = append(tensors, map[string]any{"name": t.name, "type": first(tensorTypes[t.kind], fmt.Sprint(t.kind)), "shape": t.shape})
	}
	answer := map[string]any{"tensors": tensors, "template": m.Template.source, "details": details, "model_info": info,
		"capabilities": m.capabilities(), "modified_at": m.Manifest.modified, "license": m.Manifest.text("license")}
	if m.System != "" {
		answer["system"] = m.System
	}
	if len(m.Options) > 0 {
		answer["parameters"] = m.parameters()
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// parameters is the aligned list of /api/show, one value a line, in no order.
func (m *Model) parameters() string {
	var lines []string
	for key, value := range m.Options {
		values, ok := value.([]any)
		if !ok {
			values = []any{value}
		}
		for _, v := range values {
			if text, ok := v.(string); ok {
				v = fmt.Sprintf("%q", text)
			}
			lines = append(lines, fmt.Sprintf("%-30s %v", key, v))
		}
	}
	return strings.Join(lines, "\n")
}

type copyRequest struct{ Source, Destination string }

func (s *Server) copy(w http.ResponseWriter, r *http.Request, req *copyRequest) error {
	source, destination := parseName(req.Source), parseName(req.Destination)
	if req.Source == "" || !source.Valid() {
		return refuse(http.StatusBadRequest, "source %q is invalid", req.Source)
	}
	if req.Destination == "" || !destination.Valid() {
		return refuse(http.StatusBadRequest, "destination %q is invalid", req.Destination)
	}
	source, destination = existingName(source), existingName(destination)
	data, err := os.ReadFile(filepath.Join(manifestsDir(), source.Path()))
	if errors.Is(err, os.ErrNotExist) {
		return refuse(http.StatusNotFound, "model %q not found", req.Source)
	}
	if err == nil && source != destination {
		err = writeManifest(destination, data)
	}
	return err
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request, req *nameRequest) error {
	asked := first(req.Model, req.Name)
	name := parseName(asked)
	if asked == "" || !name.Valid() {
		return refuse(http.StatusBadRequest, "name %q is invalid", asked)
	}
	name = existingName(name)
	m, err := readManifest(name)
	if err == nil {
		err = removeManifest(name)
	}
	if err == nil {
		removeUnused(m.all())
	}
	return modelError(asked, err)
}

func (s *Server) blobHead(w http.ResponseWriter, r *http.Request) {
	digest, ok := validDigest(strings.TrimPrefix(r.URL.Path, "/api/blobs/"))
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if _, err := os.Stat(blobPath(digest)); err != nil {
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *Server) blobCreate(w http.ResponseWriter, r *http.Request) {
	digest, ok := validDigest(strings.TrimPrefix(r.URL.Path, "/api/blobs/"))
	if !ok {
		fail(w, r, refuse(http.StatusBadRequest, "invalid digest format"))
		return
	}
	if _, err := os.Stat(blobPath(digest)); err == nil {
		return
	}
	if _, err := storeBlob("", r.Body, digest); err != nil {
		fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}
