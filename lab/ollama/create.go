package main

// POST /api/create: a new manifest from a stored model or an uploaded GGUF, sharing its weights.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

type createRequest struct {
	Model      string            `json:"model"`
	Name       string            `json:"name"`
	From       string            `json:"from"`
	Files      map[string]string `json:"files"`
	Template   string            `json:"template"`
	System     string            `json:"system"`
	Parameters map[string]any    `json:"parameters"`
	Stream     *bool             `json:"stream"`
	Quantize   string            `json:"quantize"`
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, req *createRequest) error {
	name, err := newName(first(req.Model, req.Name))
	if err != nil {
		return err
	}
	for file := range req.Files {
		if filepath.IsAbs(file) || strings.Contains(file, "..") {
			return refuse(http.StatusBadRequest, "invalid file path: %s", file)
		}
	}
	return work(w, r, req.Stream, func(ctx context.Context, report func(Progress)) error {
		return createModel(ctx, name, req, report)
	})
}

func createModel(ctx context.Context, name Name, req *createRequest, report func(Progress)) error {
	config, layers, err := createBase(ctx, req, report)
	if err != nil {
		return err
	}
	if kind := config.FileType; req.Quantize != "" && kind != "F16" && kind != "BF16" && kind != "F32" {
		return errors.New("quantization is only supported for F16 and F32 models")
	}
	if layers, err = req.apply(layers); err != nil {
		return err
	}
	config.RootFS = RootFS{Type: "layers"}
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
		status := "using existing layer "
		if layer.From != "" { // what was the base's is called new, though nothing is written
			status = "creating new layer "
		}
		report(Progress{Status: status + layer.Digest})
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	configLayer, err := storeBlob(typeConfig, bytes.NewReader(data), "")
	if err != nil {
		return err
	}
	var before []Layer
	if old, err := readManifest(name); err == nil {
		before = old.all()
	}
	m := &Manifest{SchemaVersion: 2, MediaType: typeManifest, Config: configLayer, Layers: layers}
	report(Progress{Status: "writing manifest"})
	if data, err = json.Marshal(m); err != nil {
		return err
	}
	if err := writeManifest(name, data); err != nil {
		return err
	}
	if !envBool("OLLAMA_NOPRUNE") {
		removeUnused(before)
	}
	report(Progress{Status: "success"})
	return nil
}

// createBase gives the layers to start from. A model that is not here is pulled, over https.
func createBase(ctx context.Context, req *createRequest, report func(Progress)) (Config, []Layer, error) {
	if len(req.Files) > 0 {
		return createFromFiles(req.Files, report)
	}
	if req.From == "" {
		return Config{}, nil, refuse(http.StatusBadRequest, "neither 'from' or 'files' was specified")
	}
	name := existingName(parseName(req.From))
	m, err := readManifest(name)
	if errors.Is(err, os.ErrNotExist) {
		if err = pullModel(ctx, Registry{name: name}, report); err == nil {
			m, err = readManifest(name)
		}
	}
	if err != nil {
		return Config{}, nil, err
	}
	layers := append([]Layer{}, m.Layers...)
	for i := range layers {
		layers[i].From = name.String()
	}
	return m.config(), layers, nil
}

func createFromFiles(files map[string]string, report func(Progress)) (config Config, layers []Layer, err error) {
	report(Progress{Status: "parsing GGUF"})
	for _, digest := range files {
		digest, ok := validDigest(digest)
		if !ok {
			return config, nil, errors.New("invalid digest format")
		}
		head, err := readGGUF(blobPath(digest))
		if errors.Is(err, errMagic) {
			return config, nil, refuse(http.StatusBadRequest, "supplied file was not in GGUF format")
		}
		if err != nil {
			return config, nil, err
		}
		layer, err := rewritten(digest)
		if err != nil {
			return config, nil, err
		}
		config = Config{ModelFormat: "gguf", ModelFamily: head.arch(), ModelFamilies: []string{head.arch()},
			ModelType: humanCount(head.Parameters), FileType: head.fileType(), Architecture: "amd64", OS: "linux"}
		layers = append(layers, layer)
	}
	return config, layers, nil
}

// replace puts a layer of a kind in the place of the base's.
func replace(layers []Layer, kind string, data []byte) ([]Layer, error) {
	layer, err := storeBlob(typeLayer+kind, bytes.NewReader(data), "")
	var kept []Layer
	for _, l := range layers {
		if l.MediaType != typeLayer+kind {
			kept = append(kept, l)
		}
	}
	return append(kept, layer), err
}

// apply lays what the request says over the base: parameters are merged, the others replaced.
func (req *createRequest) apply(layers []Layer) (_ []Layer, err error) {
	if _, err := parseTemplate(req.Template); err != nil {
		return nil, refuse(http.StatusBadRequest, "template error: %v", err)
	}
	said := [][2]string{{"template", req.Template}, {"system", req.System}}
	if len(req.Parameters) > 0 {
		merged := map[string]any{}
		base := Manifest{Layers: layers}
		if text := base.text("params"); text != "" {
			if err := json.Unmarshal([]byte(text), &merged); err != nil {
				return nil, err
			}
		}
		for key, value := range req.Parameters {
			merged[key] = value
		}
		data, _ := json.Marshal(merged)
		said = append(said, [2]string{"params", string(data)})
	}
	for _, one := range said {
		if one[1] != "" {
			if layers, err = replace(layers, one[0], []byte(one[1])); err != nil {
				return nil, err
			}
		}
	}
	return layers, nil
}
