module ollama

go 1.19
