"""A server of one's own, monitored: python server.py CHECKPOINT PORT RECORDS.jsonl; POST a PNG to /ask?question=…"""

import io
import sys
from typing import Annotated
from uuid import uuid4

import torch
import uvicorn
from fastapi import Body, FastAPI, Header
from PIL import Image
from prometheus_client import make_asgi_app
from transformers import AutoModelForImageTextToText, AutoProcessor

import vea_sdk as vea
from vea_sdk.monitor.sinks import JsonLinesSink, PrometheusSink

checkpoint, port, records = sys.argv[1:]
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint, device_map="auto", use_safetensors=True)
app = FastAPI()
monitor = vea.monitor(model, sample_rate=1.0, sinks=[PrometheusSink(), JsonLinesSink(records)])
app.mount("/metrics", make_asgi_app())


@app.post("/ask")
def ask(
    question: str, picture: Annotated[bytes, Body(media_type="image/*")], x_request_id: Annotated[str, Header()] = ""
) -> dict[str, str]:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=image, text=prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode(), monitor.request(x_request_id or uuid4().hex):  # without it, requests are numbered
        tokens = model.generate(**inputs, max_new_tokens=16)
    return {"answer": processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)}


uvicorn.run(app, host="127.0.0.1", port=int(port))
monitor.close()
