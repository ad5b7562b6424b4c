package main

// Options of a load and of a request: request over the model's PARAMETERs over the environment.

import (
	"encoding/json"
	"fmt"
)

// Options: the first group belongs to the load, a change of it loads anew; the rest to a request.
type Options struct {
	NumCtx    int `json:"num_ctx"`
	NumBatch  int `json:"num_batch"`
	NumGPU    int `json:"num_gpu"`
	NumThread int `json:"num_thread"`
	// Nothing is drafted here, yet a change of it loads anew too.
	DraftNumPredict int  `json:"draft_num_predict"`
	noShift         bool // the request's shift: false, beside its options

	NumKeep          int      `json:"num_keep"`
	Seed             int      `json:"seed"`
	NumPredict       int      `json:"num_predict"`
	TopK             int      `json:"top_k"`
	TopP             float64  `json:"top_p"`
	MinP             float64  `json:"min_p"`
	TypicalP         float64  `json:"typical_p"`
	RepeatLastN      int      `json:"repeat_last_n"`
	Temperature      float64  `json:"temperature"`
	RepeatPenalty    float64  `json:"repeat_penalty"`
	PresencePenalty  float64  `json:"presence_penalty"`
	FrequencyPenalty float64  `json:"frequency_penalty"`
	Stop             []string `json:"stop"`
}

func defaultOptions() Options {
	o := Options{NumGPU: -1, NumKeep: 4, Seed: -1, NumPredict: -1, TopK: 40, TopP: 0.9, TypicalP: 1,
		RepeatLastN: 64, Temperature: 0.8, RepeatPenalty: 1.1}
	o.NumCtx = int(envUint("OLLAMA_CONTEXT_LENGTH", 0))
	if o.NumCtx == 0 {
		o.NumCtx = standardContext()
	}
	return o
}

// merge lays a map over the options: unknown keys are ignored with a warning, wrong types refused.
func (o *Options) merge(values map[string]any) error {
	for key, value := range values {
		if !knownOption[key] {
			logWarn("types.go", "invalid option provided", "option", key)
			continue
		}
		if value == nil {
			continue
		}
		if f, ok := value.(float64); ok && f == float64(int64(f)) {
			value = int64(f)
		}
		data, err := json.Marshal(map[string]any{key: value})
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, o); err != nil {
			return fmt.Errorf("option %q must be of type %s", key, wantedType(key))
		}
	}
	return nil
}

var knownOption = func() map[string]bool {
	known := map[string]bool{}
	var fields map[string]any
	data, _ := json.Marshal(Options{})
	_ = json.Unmarshal(data, &fields)
	for key := range fields {
		known[key] = true
	}
	return known
}()

func wantedType(key string) string {
	switch key {
	case "stop":
		return "array"
	case "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty":
		return "float32"
	}
	return "integer"
}

// optionsFor merges and clamps the context to what the model was trained with.
func optionsFor(m *Model, request map[string]any) (Options, error) {
	o := defaultOptions()
	if err := o.merge(m.Options); err != nil {
		return o, err
	}
	if err := o.merge(request); err != nil {
		return o, err
	}
	if o.NumCtx < 4 {
		o.NumCtx = 4
	}
	return o, nil
}
