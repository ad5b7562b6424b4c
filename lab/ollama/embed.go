package main

// POST /api/embed and the older /api/embeddings.

import (
	"context"
	"errors"
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

type embedded struct {
	Model      string        `json:"model"`
	Embeddings [][]float32   `json:"embeddings"`
	Total      time.Duration `json:"total_duration"`
	Load       time.Duration `json:"load_duration"`
	Tokens     int           `json:"prompt_eval_count"`
}

func (s *Server) embed(w http.ResponseWriter, r *http.Request, req *embedRequest) error {
	found, err := s.vectors(r, req)
	if err == nil {
		writeJSON(w, http.StatusOK, found)
	}
	return err
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request, req *embedRequest) error {
	req.Input = req.Prompt
	found, err := s.vectors(r, req)
	var known statusError
	if errors.As(err, &known) && known.status == http.StatusNotImplemented {
		return refuse(http.StatusInternalServerError, "%v", err)
	}
	if err == nil {
		vector := append(found.Embeddings, []float32{})[0]
		writeJSON(w, http.StatusOK, map[string]any{"embedding": vector})
	}
	return err
}

// inputs are the texts to embed: one, several or none.
func (req *embedRequest) inputs() (texts []string, err error) {
	switch input := req.Input.(type) {
	case nil:
		return nil, nil
	case string:
		if input != "" {
			texts = []string{input}
		}
		return texts, nil
	case []any:
		ok := true
		for i := 0; i < len(input) && ok; i++ {
			var text string
			text, ok = input[i].(string)
			texts = append(texts, text)
		}
		if ok {
			return texts, nil
		}
	}
	return nil, refuse(http.StatusBadRequest, "invalid input type")
}

func (s *Server) vectors(r *http.Request, req *embedRequest) (*embedded, error) {
	start := time.Now()
	inputs, err := req.inputs()
	if err != nil {
		return nil, err
	}
	m, err := loadModel(req.Model)
	if errors.Is(err, os.ErrNotExist) {
		err = refuse(http.StatusNotFound, "model %q not found, try pulling it first", req.Model)
	}
	if err != nil {
		return nil, err
	}
	options, err := optionsFor(m, req.Options)
	if err != nil {
		return nil, err
	}
	loaded, err := s.sched.acquire(r.Context(), m, options, req.KeepAlive.value)
	if err != nil {
		return nil, scheduleError(req.Model, err)
	}
	defer s.sched.release(loaded)
	found := &embedded{Model: req.Model, Embeddings: [][]float32{}, Load: time.Since(start)}
	for _, input := range inputs {
		fitting, err := loaded.runner.fit(r.Context(), input, 0, loaded.options.NumCtx)
		if err != nil {
			return nil, err
		}
		if _, whole := fitting.(string); !whole && req.Truncate != nil && !*req.Truncate {
			return nil, refuse(http.StatusBadRequest, "the input length exceeds the context length")
		}
		vector, tokens, err := loaded.runner.embed(r.Context(), fitting)
		if err != nil {
			return nil, err
		}
		if req.Dimensions > 0 && req.Dimensions < len(vector) {
			vector = vector[:req.Dimensions]
		}
		found.Embeddings, found.Tokens = append(found.Embeddings, normalize(vector)), found.Tokens+tokens
	}
	found.Total = time.Since(start)
	return found, nil
}

func (r *Runner) embed(ctx context.Context, input any) ([]float32, int, error) {
	release, err := r.take(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	var answer struct {
		Data  []struct{ Embedding []float32 }
		Usage struct {
			PromptTokens int `json:"prompt_tokens"`
		}
	}
	err = r.read(ctx, "/v1/embeddings", map[string]any{"input": input, "encoding_format": "float"}, &answer)
	if err != nil {
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
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Max(math.Sqrt(sum), 1e-12))
	}
	return v
}
