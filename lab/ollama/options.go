package main

// Options of a load and of a request: request over the model's PARAMETERs over the environment.

import (
	"encoding/json"
	"errors"
	"fmt"
)

// loadOptions belong to the load: a change of one loads anew.
type loadOptions struct {
	NumCtx    int `json:"num_ctx"`
	NumBatch  int `json:"num_batch"`
	NumGPU    int `json:"num_gpu"`
	NumThread int `json:"num_thread"`
	// Nothing is drafted here, yet a change of it loads anew too.
	DraftNumPredict int  `json:"draft_num_predict"`
	noShift         bool // the request's shift: false, beside its options
}

// Options are all that a request may set.
type Options struct {
	loadOptions
	NumKeep          int      `json:"num_keep"`
	Seed             int      `json:"seed"`
	NumPredict       int      `json:"num_predict"`
	TopK             int      `json:"top_k"`
	TopP             float32  `json:"top_p"`
	MinP             float32  `json:"min_p"`
	TypicalP         float32  `json:"typical_p"`
	RepeatLastN      int      `json:"repeat_last_n"`
	Temperature      float32  `json:"temperature"`
	RepeatPenalty    float32  `json:"repeat_penalty"`
	PresencePenalty  float32  `json:"presence_penalty"`
	FrequencyPenalty float32  `json:"frequency_penalty"`
	Stop             []string `json:"stop"`
}

func defaultOptions() Options {
	o := Options{NumKeep: 4, Seed: -1, NumPredict: -1, TopK: 40, TopP: 0.9, TypicalP: 1,
		RepeatLastN: 64, Temperature: 0.8, RepeatPenalty: 1.1}
	o.NumGPU, o.NumCtx = -1, int(envUint("OLLAMA_CONTEXT_LENGTH", 0))
	if o.NumCtx == 0 {
		o.NumCtx = standardContext()
	}
	return o
}

// merge lays a map over the options: unknown keys are ignored with a warning, wrong types refused.
func (o *Options) merge(values map[string]any) error {
	known := map[string]any{}
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil {
		return err
	}
	for key, value := range values {
		if _, ok := known[key]; !ok {
			logWarn("types.go", "invalid option provided", "option", key)
			continue
		}
		if value == nil { // JSON's null would empty a list
			continue
		}
		data, err := json.Marshal(map[string]any{key: value})
		if err != nil {
			return err
		}
		var wrong *json.UnmarshalTypeError
		if err := json.Unmarshal(data, o); errors.As(err, &wrong) {
			kind := map[string]string{"int": "integer", "slice": "array"}[wrong.Type.Kind().String()]
			return fmt.Errorf("option %q must be of type %s", key, first(kind, wrong.Type.Kind().String()))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// optionsFor are those of a request over the model's own.
func optionsFor(m *Model, request map[string]any) (Options, error) {
	o := defaultOptions()
	err := o.merge(m.Options)
	if err == nil {
		err = o.merge(request)
	}
	o.NumCtx = larger(o.NumCtx, 4)
	return o, err
}
