package main

// The endpoints about stored and loaded models: tags, ps, show, copy, delete, blobs.

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

// ModelEntry is one of /api/tags; its digest is the hash of the manifest file.
type ModelEntry struct {
	Name         string    `json:"name"`
	Model        string    `json:"model"`
	ModifiedAt   time.Time `json:"modified_at"`
	Size         int64     `json:"size"`
	Digest       string    `json:"digest"`
	Details      Details   `json:"details"`
	Capabilities []string  `json:"capabilities"`
}

// RunningEntry is one of /api/ps.
type RunningEntry struct {
	Name          string    `json:"name"`
	Model         string    `json:"model"`
	Size          int64     `json:"size"`
	Digest        string    `json:"digest"`
	Details       Details   `json:"details"`
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
		entry := ModelEntry{Name: name.String(), Model: name.String(), ModifiedAt: m.modified,
			Size: m.size(), Digest: m.digest, Details: m.config().details(), Capabilities: []string{}}
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
		models = append(models, RunningEntry{Name: l.model.Name.String(), Model: l.model.Name.String(), Size: l.size,
			Digest: l.model.Manifest.digest, Details: l.model.Config.details(), ExpiresAt: expires, SizeVRAM: l.onGPU,
			ContextLength: l.options.NumCtx})
	}
	s.sched.mu.Unlock()
	sort.Slice(models, func(i, j int) bool { return models[i].ExpiresAt.After(models[j].ExpiresAt) })
	writeJSON(w, http.StatusOK, map[string]any{"models": models})
}

type nameRequest struct {
	Model string `json:"model"`
	Name  string `json:"name"`
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	var req nameRequest
	if !readJSON(w, r, &req) {
		return
	}
	asked := first(req.Model, req.Name)
	if isCloud(asked) {
		refuseCloud(w)
		return
	}
	if asked == "" {
		writeError(w, http.StatusBadRequest, "model is required")
		return
	}
	m, err := loadModel(asked)
	if err != nil {
		writeModelError(w, parseName(asked).String(), err)
		return
	}
	head, err := readGGUF(m.Weights)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			asked = m.Name.String()
		}
		writeModelError(w, asked, err)
		return
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

func (s *Server) copy(w http.ResponseWriter, r *http.Request) {
	var req struct{ Source, Destination string }
	if !readJSON(w, r, &req) {
		return
	}
	source, destination := parseName(req.Source), parseName(req.Destination)
	if req.Source == "" || !source.Valid() {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("source %q is invalid", req.Source))
		return
	}
	if req.Destination == "" || !destination.Valid() {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("destination %q is invalid", req.Destination))
		return
	}
	source, destination = existingName(source), existingName(destination)
	data, err := os.ReadFile(filepath.Join(manifestsDir(), source.Path()))
	if errors.Is(err, os.ErrNotExist) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("model %q not found", req.Source))
		return
	}
	if err == nil && source != destination {
		err = writeManifest(destination, data)
	}
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	var req nameRequest
	if !readJSON(w, r, &req) {
		return
	}
	asked := first(req.Model, req.Name)
	name := parseName(asked)
	if asked == "" || !name.Valid() {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("name %q is invalid", asked))
		return
	}
	name = existingName(name)
	m, err := readManifest(name)
	if err == nil {
		err = removeManifest(name)
	}
	if errors.Is(err, os.ErrNotExist) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", asked))
		return
	} else if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	removeUnused(m.all())
	w.WriteHeader(http.StatusOK)
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
		writeError(w, http.StatusBadRequest, "invalid digest format")
		return
	}
	if _, err := os.Stat(blobPath(digest)); err == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	if err := storeBlob(digest, r.Body); err != nil {
		status := http.StatusInternalServerError
		if strings.Contains(err.Error(), "digest mismatch") {
			status = http.StatusBadRequest
		}
		writeError(w, status, err.Error())
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func storeBlob(digest string, body io.Reader) error {
	f, err := os.CreateTemp(blobsDir(), "sha256-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), body); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("digest mismatch, expected %q, got %q", digest, got)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), blobPath(digest))
}
