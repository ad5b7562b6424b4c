package main

// POST /api/embed and the older /api/embeddings.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"
)

type embedRequest struct {
	Model      string         `json:"model"`
	Input      any            `json:"input"`
	Prompt     string         `json:"prompt"`
	Options    map[string]any `json:"options"`
	KeepAlive  KeepAlive      `json:"keep_alive"`
	Dimensions int            `json:"dimensions"`
	Truncate   *bool          `json:"truncate"`
}

func (s *Server) embed(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var req embedRequest
	if !readJSON(w, r, &req) {
		return
	}
	var inputs []string
	switch input := req.Input.(type) {
	case string:
		if input != "" {
			inputs = []string{input}
		}
	case []any:
		for _, item := range input {
			text, ok := item.(string)
			if !ok {
				writeError(w, http.StatusBadRequest, "invalid input type")
				return
			}
			inputs = append(inputs, text)
		}
	case nil:
	default:
		writeError(w, http.StatusBadRequest, "invalid input type")
		return
	}
	vectors, tokens, loaded, err := s.vectors(r, &req, inputs, start)
	if err != nil {
		failure := failed(err)
		writeError(w, failure.status, failure.Error)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"model": req.Model, "embeddings": vectors, "total_duration": time.Since(start),
		"load_duration": loaded, "prompt_eval_count": tokens})
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	var req embedRequest
	if !readJSON(w, r, &req) {
		return
	}
	var inputs []string
	if req.Prompt != "" {
		inputs = []string{req.Prompt}
	}
	vectors, _, _, err := s.vectors(r, &req, inputs, time.Now())
	if err != nil {
		failure := failed(err)
		if failure.status == http.StatusNotImplemented {
			failure.status = http.StatusInternalServerError
		}
		writeError(w, failure.status, failure.Error)
		return
	}
	vector := []float32{}
	if len(vectors) > 0 {
		vector = vectors[0]
	}
	writeJSON(w, http.StatusOK, map[string]any{"embedding": vector})
}

func (s *Server) vectors(r *http.Request, req *embedRequest, inputs []string, start time.Time) (
	vectors [][]float32, tokens int, load time.Duration, err error) {
	m, err := loadModel(req.Model)
	if errors.Is(err, os.ErrNotExist) {
		err = statusError{http.StatusNotFound, fmt.Sprintf("model %q not found, try pulling it first", req.Model)}
	}
	if err != nil {
		return nil, 0, 0, err
	}
	options, err := optionsFor(m, req.Options)
	if err != nil {
		return nil, 0, 0, err
	}
	loaded, err := s.sched.acquire(r.Context(), m, options, req.KeepAlive.value)
	if err != nil {
		return nil, 0, 0, scheduleError(req.Model, err)
	}
	defer s.sched.release(loaded)
	load = time.Since(start)
	vectors = [][]float32{}
	for _, input := range inputs {
		fitting, err := loaded.runner.fit(r.Context(), input, 0, loaded.options.NumCtx)
		if err != nil {
			return nil, 0, 0, err
		}
		if _, whole := fitting.(string); !whole && req.Truncate != nil && !*req.Truncate {
			return nil, 0, 0, statusError{http.StatusBadRequest, "the input length exceeds the context length"}
		}
		vector, n, err := loaded.runner.embed(r.Context(), fitting)
		if err != nil {
			return nil, 0, 0, err
		}
		if req.Dimensions > 0 && req.Dimensions < len(vector) {
			vector = vector[:req.Dimensions]
		}
		vectors, tokens = append(vectors, normalize(vector)), tokens+n
	}
	return vectors, tokens, load, nil
}

func (r *Runner) embed(ctx context.Context, input any) ([]float32, int, error) {
	release, err := r.take(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	resp, err := r.ask(ctx, "/v1/embeddings", map[string]any{"input": input, "encoding_format": "float"})
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Data  []struct{ Embedding []float32 }
		Usage struct {
			PromptTokens int `json:"prompt_tokens"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, 0, err
	}
	if len(answer.Data) == 0 {
		return nil, 0, errors.New("no embedding in the answer")
	}
	return answer.Data[0].Embedding, answer.Usage.PromptTokens, nil
}

func normalize(v []float32) []float32 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		return v
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(sum))
	}
	return v
}
